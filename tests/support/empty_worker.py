"""Rollout workers without an engine, in a module that is imported at once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import numpy as np
from system import system_config

from actors.cluster.placement import Placement, reserve
from actors.rollout.engine_log import OwnLog
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.supervisor import Replica
from actors.rollout.worker import Request, RolloutWorker
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.errors import RunError
from openrs_ray.records import Completion, VersionSpan


class EmptyWorker(RolloutWorker):
    """The second one cannot even start."""

    async def start(self) -> None:
        if self._worker == 1:
            raise RunError("no engine for this one")

    async def stop(self) -> None:
        pass


class DyingWorker(EmptyWorker):
    """Its engine dies when it is asked to score, and leaves in its log what vLLM's engine leaves there."""

    async def start(self) -> None:
        os.write(1, b"ValueError: of an engine before it\n")
        self._log = OwnLog()

    async def score(self, sequences: object) -> None:  # type: ignore[override]
        stamp = f"(EngineCore pid={os.getpid()}) ERROR 11-25 21:37:23 [core.py:1512] "
        for line in (
            "Traceback (most recent call last):",
            '  File "core.py", line 1',
            f"OSError: no disk {os.getpid()}",
        ):
            os.write(1, (stamp + line + "\n").encode())
        os.write(
            1, b"(MainProcess pid=1) ERROR 11-25 21:37:23 [async_llm.py:906] EngineDeadError: See stack trace (above)\n"
        )
        raise self._died()


class LoadedEmptyWorker(EmptyWorker):
    """Would hold a model's own weights."""

    holds_weights = True


class ReadingWorker(LoadedEmptyWorker):
    """Samples [number of the call, requests in the call, process] for every request, the last first, two at a time.

    Position 8 kills the first worker, after the first two completions of its call.
    """

    calls = 0

    async def start(self) -> None:
        pass

    async def answers(self) -> None:
        pass

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[list[tuple[int, Completion]]]:
        self.calls += 1
        made = [self._read(number, request, len(requests)) for number, request in enumerate(requests)][::-1]
        for start in range(0, len(made), 2):
            await asyncio.sleep(0.05)
            if start and self._worker == 0 and any(request.position == 8 for request in requests):
                await asyncio.sleep(1.0)  # what was yielded must be on its way
                os.kill(os.getpid(), signal.SIGKILL)
            yield made[start : start + 2]

    def _read(self, number: int, request: Request, asked: int) -> tuple[int, Completion]:
        ids = np.array([self.calls, asked, os.getpid()], dtype=np.int32)
        spans = (VersionSpan(0, 0, 3),)
        return number, Completion(request.position, request.sample, ids, np.zeros(3), "stop", spans, self._worker)


def places(replicas: list[Replica]) -> list[int]:
    return [replica.place for replica in replicas]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


def empty_workers(
    folder: Path, report: Callable[[str], None], kind: type[EmptyWorker] = EmptyWorker, **place: int
) -> tuple[Placement, EnginePool]:
    config = system_config(folder, folder, placement=place)
    placement = reserve(plan_layout(config, "cpu"), config.placement.wait_s)
    return placement, EnginePool(EngineSettings.of_run(config, "", (2,)), placement, kind, report)
