"""Pool of rollout workers: requests in, completions out, over the loss of any of them."""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import ray

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.cluster.together import Together
from actors.rollout.settings import EngineSettings
from actors.rollout.supervisor import Replica, Supervisor
from actors.rollout.worker import Request, RolloutWorker
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Completion

Asked = tuple[Request, asyncio.Future[Completion]]

_CALLS = 100_000  # no call waits behind those that sample


class EnginePool:
    """Every call has a deadline; others sample what a lost worker left.

    `report` is told of every loss. `revive` pushes to workers that have started when none serves.
    """

    def __init__(
        self,
        settings: EngineSettings,
        placement: Placement,
        worker_class: type[RolloutWorker] = RolloutWorker,
        report: Callable[[str], None] = lambda text: None,
        revive: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._settings = settings

        def new(place: int) -> Any:
            options = placement.rollout_options(place) | {"max_concurrency": _CALLS}
            worker = ray.remote(worker_class).options(**options)
            return worker.remote(settings, place, placement.layout.device)

        start_s = settings.engine.start_deadline_s
        self.supervisor = Supervisor(placement, new, start_s, report, worker_class.holds_weights)
        self._requests: Together[Request, Completion] = Together(self._spread)
        self._reviving = asyncio.Lock()
        self._revive = self.supervisor.ready if worker_class.holds_weights else revive

    async def start(self) -> None:
        await self.supervisor.start()

    async def stop(self) -> None:
        await self._requests.close()
        await self.supervisor.stop()

    # ------------------------------------------------------------------------------------------------ sampling

    async def sample(self, request: Request) -> Completion:
        """RunError when no worker is left, or another one would fail, too."""
        return await self._requests.ask(request)

    async def completions(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        """Completions as they end. RunError as for `sample`, and past the settings' deadline."""
        deadline_s, clock = self._settings.deadline_s, asyncio.get_running_loop().time
        deadline = clock() + deadline_s
        answers = [self._requests.ask(request) for request in requests]
        try:
            for ended, answer in enumerate(asyncio.as_completed(answers)):
                what = f"finish the last {len(answers) - ended} completions ({self._settings.deadline_field} is {deadline_s:.0f})"
                yield await within(max(0.0, deadline - clock()), "the rollout workers", what, answer)
        finally:
            for unneeded in answers:
                unneeded.cancel()

    async def _spread(self, asked: Sequence[Asked]) -> None:
        """Give each request to the worker with the fewest in hand, always in the same order."""
        shares: dict[Replica, list[Asked]] = defaultdict(list)
        if asked:
            await self._someone()  # until one serves; nothing changes between this and handing out the requests
        in_hand = [(member.sampling, member.place, member) for member in self.supervisor.serving]
        heapq.heapify(in_hand)
        for one in asked:
            sampling, place, worker = in_hand[0]
            heapq.heapreplace(in_hand, (sampling + 1, place, worker))
            worker.sampling = sampling + 1
            shares[worker].append(one)
        await asyncio.gather(*(self._sampled(worker, share) for worker, share in shares.items()))

    async def _sampled(self, worker: Replica, share: Sequence[Asked]) -> None:
        """Deliver one worker's completions; if it is lost, others sample the rest."""
        left = dict(enumerate(share))
        try:
            async for batch in self._stream(worker, [request for request, _ in share]):
                worker.proven = self.supervisor.has_sampled = True
                for number, completion in batch:
                    _, answer = left.pop(number)
                    worker.sampling -= 1
                    if not answer.done():
                        answer.set_result(completion)
            if left:
                raise RunError(f"{worker.name} lost {len(left)} of {len(share)} completions")
        except Lost as error:
            self.supervisor.lost(worker, error)
        finally:
            worker.sampling -= len(left)
        await self._spread([one for one in left.values() if not one[1].done()])

    async def _someone(self) -> Replica:
        async with self._reviving:
            self.supervisor.check()
            while not self.supervisor.serving:
                if self._revive is None:
                    raise RunError("no rollout worker is left that holds weights")
                await self._revive()
        return min(self.supervisor.serving, key=lambda member: (member.sampling, member.place))

    async def _stream(
        self, worker: Replica, requests: Sequence[Request]
    ) -> AsyncIterator[list[tuple[int, Completion]]]:
        """One worker's batches. Lost when it is silent and does not answer either."""
        beat_s = self._settings.answer_s
        references = aiter(worker.actor.sample.options(num_returns="streaming").remote(requests))
        while True:
            upcoming = asyncio.ensure_future(anext(references, None))
            try:
                while not (await asyncio.wait({upcoming}, timeout=beat_s))[0]:
                    await worker.ask(beat_s, "answers", "say that it is at work")
                reference = await within(beat_s, worker.name, "sample", upcoming)
            finally:
                upcoming.cancel()
            if reference is None:
                return
            yield await within(beat_s, worker.name, "hand over completions", reference)

    async def give_up(self) -> None:
        """Drop everything that is being sampled."""
        await self.each(self.supervisor.serving, "give_up", "drop its completions")

    # ------------------------------------------------------------------------------------------------ pushes

    @property
    def group_size(self) -> int:
        """The sender and the engine's own workers."""
        return 1 + self._settings.engine.tensor_parallel

    async def leave_learner(self) -> None:
        """Workers will join the next learner and be probed anew."""
        for replica in self.supervisor.alive:
            replica.joined, replica.probed = False, None
        await self.each(self.supervisor.alive, "leave_push", "let go of the learner")

    async def each(self, workers: Iterable[Replica], method: str, what: str, *arguments: Any) -> dict[Replica, Any]:
        """Answers by worker; one that fails or is late is lost."""
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

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """The learner at work: on shared GPUs no engine starts meanwhile, and those that can sleep do until a push."""
        if not self._settings.colocated:
            yield
            return
        async with self.supervisor.starting:  # it would look at what is free on the GPU
            if self._settings.sleeps:
                await self.each(self.supervisor.alive, "sleep", "give up its memory")
            yield
            if self._settings.sleeps:
                for replica in await self.each(self.supervisor.alive, "wake", "take its memory back"):
                    replica.state = "started"
