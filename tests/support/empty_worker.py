"""Rollout workers without an engine, in a module that is imported at once."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from system import system_config

from actors.cluster.placement import Placement, reserve
from actors.rollout.engine_log import OwnLog
from actors.rollout.pool import EnginePool
from actors.rollout.supervisor import Replica
from actors.rollout.worker import RolloutWorker
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.errors import RunError


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
    placement = reserve(config, plan_layout(config, "cpu"))
    return placement, EnginePool(config, placement, "", (2,), kind, report)
