"""All rollout workers together, as the trainer uses them: requests in, completions out, whoever of them is lost meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import ray

from actors.cluster.deadlines import within
from actors.cluster.meeting import Meeting
from actors.cluster.placement import Placement
from actors.rollout.settings import EngineSettings
from actors.rollout.supervisor import Replica, Supervisor
from actors.rollout.worker import Request, RolloutWorker
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Completion

_CALLS = 100_000
"""How many calls a worker takes at once, so that none waits behind completions that are being sampled."""


class EnginePool:
    """Every call has a deadline. A worker that dies or is late is replaced (`actors.rollout.supervisor`); others do what it left.

    `report` is told of every loss; `revive` is asked for a push when nobody serves and somebody wants to sample (where the
    workers hold a model's own weights, one that has started again is waited for instead).
    """

    def __init__(
        self,
        settings: EngineSettings,
        placement: Placement,
        worker_class: type[RolloutWorker] = RolloutWorker,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._settings = settings

        def new(place: int) -> Any:
            options = placement.rollout_options(place) | {"max_concurrency": _CALLS}
            worker = ray.remote(worker_class).options(**options)
            return worker.remote(settings, place, placement.layout.device)

        start_s = settings.engine.start_deadline_s
        self.supervisor = Supervisor(placement, new, start_s, report, worker_class.holds_weights)
        self._reviving = asyncio.Lock()
        self.revive: Callable[[], Awaitable[object]] | None = (
            self.supervisor.ready if worker_class.holds_weights else None
        )

    async def start(self) -> None:
        """Start all engines; RunError if one does not."""
        await self.supervisor.start()

    async def stop(self) -> None:
        await self.supervisor.stop()

    # ------------------------------------------------------------------------------------------------ sampling

    async def generate(self, requests: Sequence[Request], version: int) -> AsyncIterator[list[Completion]]:
        """Spread the requests over the workers in turn (so that a run repeats exactly) and yield completions as they end.

        Raises:
            RunError: a worker failed in a way that another would repeat, or the step's deadline passed.
        """
        await self._someone()
        workers = self.supervisor.serving
        finished: asyncio.Queue[list[Completion] | BaseException] = asyncio.Queue()
        streams = [
            asyncio.create_task(_into(finished, self._sampled(requests[i :: len(workers)], version, worker)))
            for i, worker in enumerate(workers)
        ]
        deadline_s = self._settings.deadline_s
        deadline = asyncio.get_running_loop().time() + deadline_s
        missing = len(requests)
        try:
            while missing:
                left = max(0.0, deadline - asyncio.get_running_loop().time())
                what = f"finish the last {missing} completions ({self._settings.deadline_field} is {deadline_s:.0f})"
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
        async for batch in self._sampled(requests, None, await self._someone()):
            yield batch

    async def _sampled(
        self, requests: Sequence[Request], version: int | None, worker: Replica
    ) -> AsyncIterator[list[Completion]]:
        """Completions from one worker; when it is lost, the rest from others."""
        left = {(request.position, request.sample): request for request in requests}
        while left:
            asked = len(left)
            worker.sampling += asked
            try:
                async for batch in self._stream(worker, list(left.values()), version):
                    worker.proven = self.supervisor.has_sampled = True
                    for completion in batch:
                        del left[completion.position, completion.sample]
                    yield batch
            except Lost as error:
                self.supervisor.lost(worker, error)
            finally:
                worker.sampling -= asked
            if left:
                worker = await self._someone()

    async def _someone(self) -> Replica:
        """The serving worker that has least to do; when none serves, one that a push has reached since."""
        async with self._reviving:
            self.supervisor.check()
            while not self.supervisor.serving:
                if self.revive is None:
                    raise RunError("no rollout worker is left that holds weights")
                await self.revive()
        return min(self.supervisor.serving, key=lambda replica: replica.sampling)

    async def _stream(
        self, worker: Replica, requests: Sequence[Request], version: int | None
    ) -> AsyncIterator[list[Completion]]:
        actor = worker.actor
        method, arguments = (actor.sample, (requests,)) if version is None else (actor.generate, (requests, version))
        references = aiter(method.options(num_returns="streaming").remote(*arguments))
        while (reference := await self._next(worker, references)) is not None:
            yield await within(self._settings.answer_s, worker.name, "hand over completions", reference)

    async def _next(self, worker: Replica, references: AsyncIterator[Any]) -> Any:
        """The stream's next item, None at its end; Lost when the worker has nothing and does not answer either."""
        beat_s = self._settings.answer_s
        upcoming = asyncio.ensure_future(anext(references, None))
        try:
            while not (await asyncio.wait({upcoming}, timeout=beat_s))[0]:
                await worker.ask(beat_s, "answers", "say that it is at work")
            return await within(beat_s, worker.name, "sample", upcoming)
        finally:
            upcoming.cancel()

    async def give_up(self) -> None:
        """Nobody waits any more for what is being sampled: what comes next has the engines to itself."""
        await self.each(self.supervisor.serving, "give_up", "drop its completions")

    # ------------------------------------------------------------------------------------------------ pushes

    async def join_push(self, worker: Replica, transport: str, meeting: Meeting) -> None:
        """Lost, or another RunError, when the worker does not join its push group."""
        deadline_s, size = self._settings.answer_s, self.group_size
        await worker.ask(deadline_s, "join_push", "join the learner for pushes", transport, meeting, size)
        worker.joined = True

    @property
    def group_size(self) -> int:
        """Members of an engine's push group: the sender and the engine's own workers."""
        return 1 + self._settings.engine.tensor_parallel

    async def leave_learner(self) -> None:
        """The learner is gone: every worker lets go of it, must join the next one anew, and prove itself again."""
        for replica in self.supervisor.alive:
            replica.joined, replica.probed = False, None
        await self.each(self.supervisor.alive, "leave_push", "let go of the learner")

    async def each(self, workers: Iterable[Replica], method: str, what: str, *arguments: Any) -> dict[Replica, Any]:
        """The answers of those workers that gave one within the push's deadline; the others are lost."""
        asked = list(workers)
        deadline_s = self._settings.answer_s
        calls = (worker.ask(deadline_s, method, what, *arguments) for worker in asked)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        given = {}
        for worker, answer in zip(asked, answers, strict=True):
            if isinstance(answer, RunError):
                self.supervisor.lost(worker, answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif worker.state != "lost":
                given[worker] = answer
        return given

    async def sleep(self) -> None:
        await self.each(self.supervisor.alive, "sleep", "give up its memory")

    async def wake(self) -> None:
        await self.each(self.supervisor.alive, "wake", "take its memory back")


async def _into(queue: "asyncio.Queue[Any]", batches: AsyncIterator[list[Completion]]) -> None:
    """Hand on what comes; an error, too, to whoever reads the queue."""
    try:
        async for batch in batches:
            await queue.put(batch)
    except Exception as error:
        await queue.put(error)
