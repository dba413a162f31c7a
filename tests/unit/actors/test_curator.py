"""The curator with engines replaced by a clock: chunks in flight, replies in order, and what is handed on before an error."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors import curator
from actors.curator import ask
from actors.rollout import loaded
from actors.rollout.worker import Request
from openrs_ray.curation.fates import Reply
from openrs_ray.curation.pipeline import Question
from openrs_ray.curation.recipe import Recipe, Solved
from openrs_ray.errors import RunError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion

TOKENIZER = make_tokenizer()
STAGE = Solved(model="toy", dtype="float32", samples=2, max_prompt_tokens=16, max_tokens=8, temperature=0.5, top_p=0.9)
QUESTIONS = [Question(row, (1, row), (10 * row, 10 * row + 1)) for row in range(7)]


class Engines:
    """Says each request's row, the last request first; `dies` at one row."""

    dies = -1
    asked: list[Request]
    at_once: list[int]
    settings: Any

    def __init__(self, settings: Any, *arguments: Any) -> None:
        kind = type(self)
        kind.asked, kind.at_once, kind.settings = [], [], settings
        self.busy = 0

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def completions(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        self.asked.extend(requests)
        self.busy += 1
        self.at_once.append(self.busy)
        for request in reversed(requests):
            await asyncio.sleep(0.01)
            if request.position == self.dies:
                raise RunError("the rollout workers did not finish the last 2 completions (chunk_deadline_s is 1)")
            ids = np.array(TOKENIZER(f"{request.position}<|end|>")["input_ids"], dtype=np.int32)
            yield Completion(request.position, request.sample, ids, np.zeros(len(ids)), "stop", (), worker=0)
        self.busy -= 1


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> type[Engines]:
    placement = SimpleNamespace(release=lambda: None, layout=SimpleNamespace(rollout=[{}]))
    monkeypatch.setattr(loaded, "EnginePool", Engines)
    monkeypatch.setattr(curator, "place_engines", lambda slots, engine: placement)
    monkeypatch.setattr(Engines, "dies", -1)
    return Engines


def recipe(folder: Path) -> Recipe:
    content = {"name": "mine", "sources": {"own": {"path": "toy"}}, "stages": {"b": {"kind": "boxed"}}, "chunk": 2}
    return Recipe.model_validate(content | {"folder": str(folder), "chunk_deadline_s": 1})


def test_every_question_is_asked_once_with_its_seeds_and_replies_come_whole(
    tmp_path: Path, engines: type[Engines]
) -> None:
    told: list[dict[int, tuple[Reply, ...]]] = []
    asyncio.run(ask(recipe(tmp_path), STAGE, QUESTIONS, told.append, pytest.fail))
    assert sorted((r.position, r.sample, r.seed) for r in engines.asked) == [
        (row, sample, 10 * row + sample) for row in range(7) for sample in range(2)
    ]
    assert {(r.temperature, r.top_p, r.max_tokens) for r in engines.asked} == {(0.5, 0.9, 8)}
    assert sorted(sorted(chunk) for chunk in told) == [[0, 1], [2, 3], [4, 5], [6]]
    replies = {row: several for chunk in told for row, several in chunk.items()}
    assert replies == {row: (Reply(str(row), len(str(row)) + 1, "stop"),) * 2 for row in range(7)}
    assert max(engines.at_once) == 2, "one chunk for the engine, and one so that it never waits"
    settings = engines.settings
    assert (settings.deadline_s, settings.max_sequence_tokens, settings.dtype) == (1, 24, "float32")


def test_chunks_that_were_finished_before_an_error_are_handed_on(tmp_path: Path, engines: type[Engines]) -> None:
    told: list[dict[int, tuple[Reply, ...]]] = []
    engines.dies = 6
    with pytest.raises(RunError, match="chunk_deadline_s is 1"):
        asyncio.run(ask(recipe(tmp_path), STAGE, QUESTIONS, told.append, pytest.fail))
    assert {row for chunk in told for row in chunk} >= {0, 1, 2, 3}
