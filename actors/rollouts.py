"""All rollout workers together, as the trainer uses them; one that is lost is replaced while the others go on.

Life of a worker: starting (its engine comes up) -> started (waits for weights) -> serving (since a push reached it, with proof)
-> lost, for whatever reason: its process is ended, another one is starting in its place, and what it had not finished is
sampled by the others. A replacement that finds no free place in the cluster, as when its node is gone, starts when there is one.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray

from actors.placement import Placement
from actors.rollout import Request, RolloutWorker
from actors.waiting import within
from openrs_ray.config import RunConfig
from openrs_ray.errors import Lost, RunError
from openrs_ray.samples import Completion

_FAILURES = 3
"""A worker that is lost so often without having served in between has a fault that starting again does not mend."""
_KILL_S = 30.0


@dataclass
class _Member:
    actor: Any
    state: Literal["starting", "started", "serving"] = "starting"
    process: tuple[str, int] | None = None
    """Node address and process id, once it runs."""
    joined: bool = False
    """Whether it is in the push group that the present learner has made for it."""
    sampling: int = 0
    """Completions it has been asked for and has not finished."""
    failures: int = 0
    starting: asyncio.Task[None] | None = None


class RolloutWorkers:
    """Handles of all workers. Every call has a deadline.

    `report` is told of every loss; `revive` is asked for a push when nobody serves and somebody samples.
    """

    def __init__(
        self,
        config: RunConfig,
        placement: Placement,
        model_path: str,
        eos_ids: tuple[int, ...],
        worker_class: type[RolloutWorker] = RolloutWorker,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._config = config
        self._new = lambda index: (
            ray.remote(worker_class)
            .options(**placement.rollout_options(index))
            .remote(config, model_path, index, placement.layout.device, eos_ids)
        )
        self._members = [_Member(self._new(index)) for index in range(config.num_engines)]
        self._report = report
        self._reviving = asyncio.Lock()
        self.revive: Callable[[], Awaitable[object]] | None = None

    # ------------------------------------------------------------------------------------------------ who there is

    @property
    def serving(self) -> list[int]:
        return self._in("serving")

    @property
    def alive(self) -> list[int]:
        """Those that have started and are not known to be lost."""
        return self._in("started", "serving")

    @property
    def group_size(self) -> int:
        """Members of an engine's push group: the sender and the engine's own workers."""
        return 1 + self._config.rollout.tensor_parallel

    def _in(self, *states: str) -> list[int]:
        return [index for index, member in enumerate(self._members) if member.state in states]

    async def start(self) -> None:
        """Start all engines; RunError if one does not."""
        await asyncio.gather(*(self._start(index) for index in range(len(self._members))))

    async def _start(self, index: int) -> None:
        member, deadline_s = self._members[index], self._config.rollout.start_deadline_s
        who = f"rollout worker {index}"
        member.process = await within(deadline_s, who, "be placed", member.actor.process.remote())
        await within(deadline_s, who, "start its engine", member.actor.start.remote())
        member.state = "started"

    def lost(self, index: int, reason: object) -> None:
        """End what is left of a worker and start another in its place. RunError when that has been tried too often."""
        member = self._members[index]
        if member.state == "starting":
            return
        if member.failures + 1 >= _FAILURES:
            raise RunError(
                f"rollout worker {index} was lost {_FAILURES} times without having served, last because: {reason}"
            )
        self._report(f"rollout worker {index} is lost and is started again, the others go on: {reason}")
        self._end(member)
        self._members[index] = replacement = _Member(self._new(index), failures=member.failures + 1)
        replacement.starting = asyncio.ensure_future(self._start_again(index))

    async def _start_again(self, index: int) -> None:
        while True:
            try:
                await self._start(index)
                return
            except Lost as error:  # no place for it yet, or lost once more
                member = self._members[index]
                self._report(f"rollout worker {index} has not started yet: {error}")
                self._end(member)
                member.actor, member.process = self._new(index), None

    def _end(self, member: _Member) -> None:
        with suppress(Exception):  # it may be gone already
            ray.kill(member.actor)
        # A process that is stopped does not hear Ray; on this node it can be ended nevertheless.
        if member.process is not None and member.process[0] == ray.util.get_node_ip_address():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.process[1], signal.SIGKILL)

    async def ready(self) -> list[int]:
        """Workers that can take a push; waits for the first to start again when there is none."""
        while not (ready := self.alive):
            starting = [member.starting for member in self._members if member.starting is not None]
            await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
            for task in starting:
                if task.done():
                    task.result()
        return ready

    # ------------------------------------------------------------------------------------------------ sampling

    async def generate(self, requests: Sequence[Request], version: int) -> AsyncIterator[list[Completion]]:
        """Spread the requests over the workers in turn (so that a run repeats exactly) and yield completions as they end.

        Raises:
            RunError: a worker failed in a way that another would repeat, or the step's deadline passed.
        """
        await self._someone()
        workers = self.serving
        shares = {worker: requests[place :: len(workers)] for place, worker in enumerate(workers)}
        finished: asyncio.Queue[list[Completion] | BaseException] = asyncio.Queue()
        streams = [
            asyncio.create_task(_into(finished, self._sampled(share, version, worker)))
            for worker, share in shares.items()
        ]
        deadline_s = self._config.rollout.deadline_s
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

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[list[Completion]]:
        """Sample these on the worker that has least to do, beside what it is at, and through pushes."""
        async for batch in self._sampled(requests, None, None):
            yield batch

    async def _sampled(
        self, requests: Sequence[Request], version: int | None, worker: int | None
    ) -> AsyncIterator[list[Completion]]:
        """Completions from one worker; when it is lost, the rest from another."""
        left = {(request.position, request.sample): request for request in requests}
        while left:
            if worker is None or worker not in self.serving:
                worker = await self._someone()
            member, asked = self._members[worker], len(left)
            member.sampling += asked
            try:
                async for batch in self._stream(worker, list(left.values()), version):
                    for completion in batch:
                        del left[completion.position, completion.sample]
                    yield batch
            except Lost as error:
                if member is self._members[worker]:
                    self.lost(worker, error)
            finally:
                member.sampling -= asked

    async def _someone(self) -> int:
        """The serving worker that has least to do; when none serves, one that a push has reached since."""
        async with self._reviving:
            while not self.serving:
                if self.revive is None:
                    raise RunError("no rollout worker is left that holds weights")
                await self.revive()
        return min(self.serving, key=lambda index: self._members[index].sampling)

    async def _stream(
        self, worker: int, requests: Sequence[Request], version: int | None
    ) -> AsyncIterator[list[Completion]]:
        actor, deadline_s = self._members[worker].actor, self._config.rollout.deadline_s
        method, arguments = (actor.sample, (requests,)) if version is None else (actor.generate, (requests, version))
        references = aiter(method.options(num_returns="streaming").remote(*arguments))
        who = f"rollout worker {worker}"
        while (reference := await within(deadline_s, who, "sample", anext(references, None))) is not None:
            yield await within(deadline_s, who, "sample", reference)

    # ------------------------------------------------------------------------------------------------ pushes

    async def join_push(self, worker: int, transport: str, host: str, port: int) -> None:
        actor, deadline_s = self._members[worker].actor, self._config.push.deadline_s
        joined = actor.join_push.remote(transport, host, port, self.group_size)
        await within(deadline_s, f"rollout worker {worker}", "join the learner for pushes", joined)
        self._members[worker].joined = True

    def not_joined(self, workers: Iterable[int]) -> list[int]:
        return [worker for worker in workers if not self._members[worker].joined]

    def forget_learner(self) -> None:
        """The learner is another one now: every worker must join it anew."""
        for member in self._members:
            member.joined = False

    async def begin_push(self, workers: Iterable[int]) -> list[int]:
        return list(await self._each(workers, "begin_push", "pause for a push"))

    async def receive(
        self,
        workers: Iterable[int],
        buckets: list[list[tuple[str, str, list[int]]]],
        handles: dict[str, list[Any]] | None = None,
    ) -> list[int]:
        return list(await self._each(workers, "receive", "receive weights", buckets, handles))

    async def end_push(self, workers: Iterable[int], version: int) -> dict[int, list[dict[str, Any]]]:
        return await self._each(workers, "end_push", "put the new weights in place", version)

    async def score(
        self, workers: Iterable[int], sequences: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> dict[int, list[np.ndarray]]:
        """Log-probabilities of the sequences' completion tokens, by worker."""
        return await self._each(workers, "score", "score the probe", sequences)

    def serve(self, workers: Iterable[int]) -> None:
        """These hold the present weights: they sample from now on."""
        for worker in workers:
            self._members[worker].state, self._members[worker].failures = "serving", 0

    async def sleep(self) -> None:
        await self._each(self.alive, "sleep", "give up its memory")

    async def wake(self) -> None:
        await self._each(self.alive, "wake", "take its memory back")

    async def stop(self) -> None:
        """End all engines, those that are starting too."""
        for member in self._members:
            if member.starting is not None:
                member.starting.cancel()
        stopping = [member.actor.stop.remote() for member in self._members if member.state != "starting"]
        await asyncio.gather(*(within(_KILL_S, "a rollout worker", "stop its engine", call) for call in stopping))

    async def _each(self, workers: Iterable[int], method: str, what: str, *arguments: Any) -> dict[int, Any]:
        """The answers of those workers that gave one within the push's deadline; the others are lost."""
        asked = [(worker, self._members[worker]) for worker in workers]
        answers = await asyncio.gather(
            *(
                within(
                    self._config.push.deadline_s,
                    f"rollout worker {worker}",
                    what,
                    getattr(member.actor, method).remote(*arguments),
                )
                for worker, member in asked
            ),
            return_exceptions=True,
        )
        given = {}
        for (worker, member), answer in zip(asked, answers, strict=True):
            if isinstance(answer, RunError):
                if member is self._members[worker]:  # not yet replaced for another reason
                    self.lost(worker, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                given[worker] = answer
        return given


async def _into(queue: "asyncio.Queue[Any]", batches: AsyncIterator[list[Completion]]) -> None:
    """Hand on what comes; an error, too, to whoever reads the queue."""
    try:
        async for batch in batches:
            await queue.put(batch)
    except Exception as error:
        await queue.put(error)
