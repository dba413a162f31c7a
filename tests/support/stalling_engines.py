"""Engines that are slow to answer, or stop for good in the middle of a push; loaded in the actors' processes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.rollout.worker import RolloutWorker
from actors.weights.receiver import BACKEND, PushReceiver, WorkerExtension
from openrs_ray.records import Completion

STOP_IN_PUSH = 2
"""Counting from 1."""


class SlowWorker(RolloutWorker):
    """The second worker keeps its completions to itself for some seconds."""

    async def sample(self, *arguments: Any) -> AsyncIterator[list[tuple[int, Completion]]]:
        if self._worker == 1:
            await asyncio.sleep(5)
        async for batch in super().sample(*arguments):
            yield batch


class DummyWorker(RolloutWorker):
    """Serves with the random weights that its engine starts with."""

    holds_weights = True

    async def start(self) -> None:
        await super().start()
        await self._engine.update_weight_version("0")


class StallingReceiver(PushReceiver):
    """Stops like a process under SIGSTOP, between the first and the second bucket of a push; once, whoever does it first."""

    pushes = 0
    buckets = 0

    def start_weight_update(self) -> None:
        self.pushes, self.buckets = self.pushes + 1, 0
        super().start_weight_update()

    def _receive(self, nbytes: int, parcel: Any) -> torch.Tensor:
        self.buckets += 1
        mark = Path(os.environ["STALL_ONCE"])
        if (self.pushes, self.buckets) == (STOP_IN_PUSH, 2) and mark.exists():
            try:
                mark.unlink()
            except FileNotFoundError:
                return super()._receive(nbytes, parcel)  # the other engine was faster
            os.kill(os.getpid(), signal.SIGSTOP)
        return super()._receive(nbytes, parcel)


class StallingExtension(WorkerExtension):
    """Importing its module puts the stalling receiver in the real one's place."""


class StallingWorker(RolloutWorker):
    worker_extension = "stalling_engines.StallingExtension"


if "STALL_ONCE" in os.environ:
    WeightTransferEngineFactory._registry[BACKEND] = lambda: StallingReceiver
