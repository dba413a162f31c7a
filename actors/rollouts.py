"""All rollout workers together, as the trainer uses them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import numpy as np
import ray

from actors.placement import Placement
from actors.rollout import Request, RolloutWorker
from actors.waiting import within
from openrs_ray.config import RunConfig
from openrs_ray.samples import Completion

_CALLS = 100_000
"""At once in one worker: every group under way is a call of its own, and a push must not queue behind them."""


class RolloutWorkers:
    """Handles of all workers; every call goes to all of them and has a deadline."""

    def __init__(
        self,
        config: RunConfig,
        placement: Placement,
        model_path: str,
        eos_ids: tuple[int, ...],
        worker_class: type[RolloutWorker] = RolloutWorker,
    ) -> None:
        self._config = config
        self._actors = [
            ray.remote(worker_class)
            .options(**placement.rollout_options(index), max_concurrency=_CALLS)
            .remote(config, model_path, index, placement.layout.device, eos_ids)
            for index in range(config.num_engines)
        ]
        self._sampling = [0] * config.num_engines

    @property
    def num_receivers(self) -> int:
        """vLLM workers that take part in a push."""
        return len(self._actors) * self._config.rollout.tensor_parallel

    async def start(self) -> None:
        await self._all("start", self._config.rollout.start_deadline_s, "start its engine")

    async def generate(self, requests: Sequence[Request], version: int) -> AsyncIterator[list[Completion]]:
        """Spread the requests over the workers in turn (so that a run repeats exactly) and yield completions as they end.

        Raises:
            RunError: a worker failed, or the step's deadline passed.
        """
        deadline_s = self._config.rollout.deadline_s
        finished: asyncio.Queue[list[Completion] | BaseException] = asyncio.Queue()
        count = len(self._actors)
        streams = [
            asyncio.create_task(self._stream(worker, requests[worker::count], version, finished))
            for worker in range(count)
        ]
        deadline = asyncio.get_running_loop().time() + deadline_s
        missing = len(requests)
        try:
            while missing:
                left = max(0.0, deadline - asyncio.get_running_loop().time())
                what = f"finish the last {missing} completions (rollout.deadline_s is {deadline_s:.0f})"
                batch = await within(left, "the rollout workers", what, finished.get())
                if isinstance(batch, BaseException):
                    raise batch
                missing -= len(batch)
                yield batch
        finally:
            for stream in streams:
                stream.cancel()

    async def _stream(
        self, worker: int, requests: Sequence[Request], version: int, finished: "asyncio.Queue[Any]"
    ) -> None:
        try:
            if requests:
                actor = self._actors[worker]
                deadline_s = self._config.rollout.deadline_s
                async for reference in actor.generate.options(num_returns="streaming").remote(requests, version):
                    await finished.put(await within(deadline_s, f"rollout worker {worker}", "sample", reference))
        except Exception as error:  # handed to generate(), which raises it
            await finished.put(error)

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[list[Completion]]:
        """Sample these on the worker that has least to do, beside what it is at.

        Raises:
            RunError: the worker failed, or took longer than rollout.deadline_s.
        """
        worker = min(range(len(self._actors)), key=lambda index: self._sampling[index])
        self._sampling[worker] += len(requests)
        deadline_s = self._config.rollout.deadline_s
        try:
            stream = self._actors[worker].sample.options(num_returns="streaming").remote(requests)
            async for reference in stream:
                yield await within(deadline_s, f"rollout worker {worker}", "sample", reference)
        finally:
            self._sampling[worker] -= len(requests)

    def score(
        self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[Coroutine[Any, Any, list[np.ndarray]]]:
        """One awaitable per worker, with the log-probabilities of the sequences' completion tokens."""
        return [
            within(
                self._config.push.deadline_s,
                f"rollout worker {index}",
                "score the probe",
                actor.score.remote(sequences),
            )
            for index, actor in enumerate(self._actors)
        ]

    async def join_push(self, transport: str, host: str, port: int, world_size: int) -> None:
        size = self._config.rollout.tensor_parallel
        await asyncio.gather(
            *(
                within(
                    self._config.push.deadline_s,
                    f"rollout worker {index}",
                    "join the push group",
                    actor.join_push.remote(transport, host, port, 1 + index * size, world_size),
                )
                for index, actor in enumerate(self._actors)
            )
        )

    async def begin_push(self) -> None:
        await self._all("begin_push", self._config.push.deadline_s, "pause for a push")

    async def receive(
        self, buckets: list[list[tuple[str, str, list[int]]]], handles: dict[str, list[Any]] | None = None
    ) -> None:
        await self._all("receive", self._config.push.deadline_s, "receive weights", buckets, handles)

    async def end_push(self, version: int) -> list[list[dict[str, Any]]]:
        return await self._all("end_push", self._config.push.deadline_s, "put the new weights in place", version)

    async def sleep(self) -> None:
        await self._all("sleep", self._config.push.deadline_s, "give up its memory")

    async def wake(self) -> None:
        await self._all("wake", self._config.push.deadline_s, "take its memory back")

    async def stop(self) -> None:
        await self._all("stop", 30, "stop its engine")

    async def _all(self, method: str, deadline_s: float, what: str, *arguments: Any) -> list[Any]:
        return list(
            await asyncio.gather(
                *(
                    within(deadline_s, f"rollout worker {index}", what, getattr(actor, method).remote(*arguments))
                    for index, actor in enumerate(self._actors)
                )
            )
        )
