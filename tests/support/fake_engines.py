"""Engines of an evaluation replaced by a list of answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from actors.rollout import loaded
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.errors import RunError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion

TOKENIZER = make_tokenizer()
PLACEMENT: Any = SimpleNamespace(release=lambda: None, layout=SimpleNamespace(rollout=[{}]))


class FakeWorkers:
    """Answers 7 to everything, two completions at a time, last requests first; dies after `lives` of them."""

    lives = 1000
    asked: Sequence[Request] = ()
    loads: ClassVar[list[str]] = []
    """Models that engines were started with."""

    def __init__(self, settings: EngineSettings, *arguments: Any) -> None:
        self.model = settings.model_path
        self.loads.append(self.model)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def completions(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        type(self).asked = requests
        backwards = list(requests)[::-1]
        for start in range(0, len(backwards), 2):
            if start >= self.lives:
                raise RunError("rollout worker 0 lost its engine")
            for request in backwards[start : start + 2]:
                yield self.answer(request)

    def answer(self, request: Request) -> Completion:
        return answer(request)


def answer(request: Request, value: int = 7) -> Completion:
    ids = np.array(TOKENIZER(f"3+4</think>\\boxed{{{value}}}<|end|>")["input_ids"], dtype=np.int32)
    return Completion(request.position, request.sample, ids, np.zeros(len(ids)), "stop", (), worker=0)


def install(monkeypatch: pytest.MonkeyPatch, kind: type[FakeWorkers] = FakeWorkers) -> type[FakeWorkers]:
    """Put a class of its own in the place of all engines of an evaluation, and no Ray beside them."""

    class Workers(kind):  # type: ignore[misc, valid-type]
        loads: ClassVar[list[str]] = []

    monkeypatch.setattr(loaded, "EnginePool", Workers)
    monkeypatch.setattr("launch.driver.engines.place_engines", lambda slots, engine: PLACEMENT)
    monkeypatch.setattr("actors.cluster.placement.connection", nullcontext)
    monkeypatch.setattr("actors.cluster.placement.check_build", lambda config: None)
    return Workers
