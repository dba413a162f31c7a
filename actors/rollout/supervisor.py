"""The rollout workers' coming and going: who is lost is replaced while the others go on, who finds room joins them.

Life of a worker: starting (placed, its engine comes up) -> started (waits for weights, unless it holds a model's own) -> serving
(since a push reached it, with proof) -> lost, for whatever reason: its processes are ended and another worker starts in its
place. A Replica is one such life; it is never used again under another one's name, so what is heard late of a lost worker
cannot harm its replacement.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.cluster.processes import Processes, end_actor
from openrs_ray.common.last_error import same_error
from openrs_ray.errors import EngineDied, Recurring, RunError

_FAILURES = 3
"""A place whose workers fail so often in a row, none of them proven, has a fault that starting again does not mend."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""Between two tries to start a worker, doubled after each."""
_STOP_S = 30.0


@dataclass(eq=False)
class Replica:
    """One rollout worker, from its start to its loss."""

    place: int
    """Its number among the workers, which its replacement will have too."""
    actor: Any
    state: Literal["starting", "started", "serving", "lost"] = "starting"
    processes: Processes | None = None
    """Once it is placed."""
    joined: bool = False
    """Whether it is in the push group that the present learner has made for it."""
    probed: tuple[np.ndarray, np.ndarray] | None = None
    """The learner's log-probabilities of the probe's tokens and its own, float32 [tokens] each, when they were compared last."""
    proven: bool = False
    """Whether a push has reached it or completions have come from it: its place is sound."""
    sampling: int = 0
    """Completions it has been asked for and has not finished."""

    @property
    def name(self) -> str:
        return f"rollout worker {self.place}"

    async def ask(self, deadline_s: float, method: str, what: str, *arguments: Any) -> Any:
        """What the worker's method returns. Lost when the worker dies or is late."""
        return await within(deadline_s, self.name, what, getattr(self.actor, method).remote(*arguments))

    async def start(self, deadline_s: float) -> None:
        """Start the engine of a worker that is placed."""
        await self.ask(deadline_s, "start", "start its engine")
        self.state = "started"

    async def end(self) -> None:
        self.state = "lost"
        await end_actor(self.actor, self.processes)


class Supervisor:
    """All replicas. `report` is told of every one that is lost, given up or added."""

    def __init__(
        self,
        placement: Placement,
        new: Callable[[int], Any],
        deadline_s: float,
        report: Callable[[str], None],
        hold_weights: bool = False,
    ) -> None:
        """`new` makes the actor for a place. `deadline_s`: for being placed, and for starting an engine. `hold_weights`:
        engines start with a model's own weights, and serve from then on."""
        self._placement = placement
        self._new = new
        self._deadline_s = deadline_s
        self._report = report
        self._hold_weights = hold_weights
        self._replicas = {place: Replica(place, new(place)) for place in range(len(placement.layout.rollout))}
        self._coming: dict[int, asyncio.Task[None]] = {}
        self._failures: Counter[int] = Counter()
        self._given_up: set[int] = set()
        self._stopping = False
        self._last_reason: object = ""
        self._errors: dict[int, str] = {}
        """The last error of an engine's own in each place."""
        self._recurring: Recurring | None = None
        self.has_sampled = False
        """True once a completion has come."""
        self.starting = asyncio.Lock()
        """Held while a replacement's engine starts, and by whoever needs that none does."""

    @property
    def serving(self) -> list[Replica]:
        return [replica for replica in self._replicas.values() if replica.state == "serving"]

    @property
    def alive(self) -> list[Replica]:
        """Those that have started and are not known to be lost."""
        return [replica for replica in self._replicas.values() if replica.state in ("started", "serving")]

    async def start(self) -> None:
        """Start the first replicas, all at once; RunError if one does not: what stops it now would stop it later."""
        await asyncio.gather(*(self._start(replica) for replica in self._replicas.values()))

    async def _start(self, replica: Replica) -> None:
        replica.processes = await replica.ask(self._deadline_s, "processes", "be placed")
        await self._start_engine(replica)

    async def _start_engine(self, replica: Replica) -> None:
        await replica.start(self._deadline_s)
        if self._hold_weights:
            replica.state = "serving"

    def serve(self, replicas: Iterable[Replica]) -> None:
        """These hold the present weights: they sample from now on."""
        for replica in replicas:
            if replica.state != "lost":
                replica.state, replica.proven = "serving", True

    def lost(self, replica: Replica, reason: object) -> None:
        """End what is left of a replica and start another in its place; nothing if it is known to be lost."""
        if replica.state in ("starting", "lost") or self._stopping:
            return
        self._failures[replica.place] = 0 if replica.proven else self._failures[replica.place] + 1
        replica.state = "lost"
        self._last_reason = reason
        self._note_error(replica.place, reason)
        self._report(f"{replica.name} is lost{self._what_next()}: {reason}")
        self._coming[replica.place] = asyncio.ensure_future(self._replace(replica))

    def _what_next(self) -> str:
        if self._recurring:
            return ""
        return ", the others go on" if self.alive else ", and another is started in its place"

    def _note_error(self, place: int, reason: object) -> None:
        """Remember why an engine died; the run ends if the last one died as its predecessor did, and no completion ever came."""
        if not isinstance(reason, EngineDied) or self.has_sampled:
            return
        if same_error(self._errors.get(place, ""), reason.error) and not self.alive:
            self._recurring = Recurring(
                f"an engine died of the same error twice, before any completion had come, and is not started again: {reason}"
            )
        self._errors[place] = reason.error

    def check(self) -> None:
        """Raise Recurring when another engine would not help."""
        if self._recurring:
            raise self._recurring

    async def _replace(self, replica: Replica) -> None:
        await replica.end()
        if self._recurring:
            return
        if self._placement.is_extra(replica.place):
            self._give_up(replica.place)  # `_grow` sees whether there is room for another
        else:
            await self._bring(replica.place)

    async def _bring(self, place: int) -> None:
        """Start a worker in a place, however long it takes to get one, unless it fails too often."""
        pause = _PAUSE_S
        while self._failures[place] < _FAILURES:
            replica = self._replicas[place] = Replica(place, self._new(place))
            try:
                replica.processes = await replica.ask(self._deadline_s, "processes", "be placed")
                async with self.starting:
                    await self._start_engine(replica)
                return
            except RunError as error:
                await replica.end()
                self._last_reason = error
                self._note_error(place, error)
                if self._recurring:
                    return
                if replica.processes is not None:
                    self._failures[place] += 1
                elif self._placement.is_extra(place):
                    break
                self._report(f"{replica.name} has not started yet: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._give_up(place)

    def _give_up(self, place: int) -> None:
        self._replicas.pop(place, None)
        if self._placement.is_extra(place):
            self._placement.leave(place)
        if self._failures[place] >= _FAILURES:
            self._given_up.add(place)
            self._report(f"rollout worker {place} is given up after {_FAILURES} failures in a row")

    def grow(self) -> None:
        """Have more workers where the cluster has room for them."""
        coming = {place for place, task in self._coming.items() if not task.done()}
        taken = self._replicas.keys() | coming | self._given_up
        for place in self._placement.extra_places(taken):
            self._report(f"the cluster has room for rollout worker {place}, which is started")
            self._coming[place] = asyncio.ensure_future(self._bring(place))

    async def ready(self) -> list[Replica]:
        """Replicas that can take a push; where there is none, waits until one has started again.

        Raises:
            RunError: none has within the deadline, or every place was given up; Recurring: as `check` says.
        """
        self.check()
        for task in self._coming.values():
            if task.done():
                task.result()  # a mistake of ours
        if not self.alive:
            await within(self._deadline_s, "the rollout workers", "start again", self._first())
        return self.alive

    async def _first(self) -> None:
        while not self.alive:
            self.check()
            coming = {task for task in self._coming.values() if not task.done()}
            if not coming:
                raise RunError(f"no rollout worker is left; the last one was lost because: {self._last_reason}")
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """End all engines, those that are starting too."""
        self._stopping = True
        for task in self._coming.values():
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)
        await asyncio.gather(*(self._stop(replica) for replica in self._replicas.values()))

    async def _stop(self, replica: Replica) -> None:
        try:
            if replica.state in ("started", "serving"):
                await replica.ask(_STOP_S, "stop", "stop its engine")
            else:
                await replica.end()
        except RunError as error:
            self._report(f"while stopping: {error}")
            await replica.end()
