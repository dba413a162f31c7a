"""Supervises rollout workers: replaces failed ones, adds more when the cluster has room.

A worker is starting, started (waits for weights), serving (has proven weights) or lost: its processes are ended, and a new
Replica starts in its place.
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

_FAILURES = 3  # in a row, of unproven workers, before a place is given up
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # between attempts to start a worker, doubled each time
_STOP_S = 30.0


@dataclass(eq=False)
class Replica:
    place: int
    """Its number and its replacements'."""
    actor: Any
    state: Literal["starting", "started", "serving", "lost"] = "starting"
    processes: Processes | None = None
    joined: bool = False
    """Takes part in the present learner's pushes."""
    has_base: bool = False
    """True if the worker holds the frozen weights that adapters are merged into."""
    probed: tuple[np.ndarray, np.ndarray] | None = None
    """Last probe: the learner's and its own log-probabilities, float32 [tokens] each."""
    proven: bool = False
    """A push has reached it, or it has sampled."""
    sampling: int = 0
    """Completions in hand."""

    @property
    def name(self) -> str:
        return f"rollout worker {self.place}"

    async def ask(self, deadline_s: float, method: str, what: str, *arguments: Any) -> Any:
        """Call a method of the worker. Lost when it dies or is late."""
        return await within(deadline_s, self.name, what, getattr(self.actor, method).remote(*arguments))

    async def end(self) -> None:
        self.state = "lost"
        await end_actor(self.actor, self.processes)


@dataclass(eq=False)
class Supervisor:
    """All replicas; `report` gets a line for each loss and each new place."""

    placement: Placement
    new: Callable[[int], Any]
    """Makes a place's actor."""
    deadline_s: float
    """To place it, and to start it."""
    report: Callable[[str], None]
    holds_weights: bool
    """Workers serve once started."""

    def __post_init__(self) -> None:
        self._replicas: dict[int, Replica] = {}
        self._coming: dict[int, asyncio.Task[None]] = {}
        self._failures: Counter[int] = Counter()
        self._given_up: set[int] = set()
        self._stopping = False
        self._last_reason: object = ""
        self._errors: dict[int, str] = {}  # the last engine's error, by place
        self._recurring: Recurring | None = None
        self.has_sampled = False  # any completion
        self.losses = self.replacements = 0
        self.starting = asyncio.Lock()  # held while a replacement's engine starts

    @property
    def serving(self) -> list[Replica]:
        return [replica for replica in self._replicas.values() if replica.state == "serving"]

    @property
    def alive(self) -> list[Replica]:
        """Started and not lost."""
        return [replica for replica in self._replicas.values() if replica.state in ("started", "serving")]

    async def start(self) -> None:
        """RunError if one of the first replicas fails.

        Before, no actor holds a place: a teacher's engines may be in them.
        """
        places = range(len(self.placement.layout.rollout))
        self._replicas = {place: Replica(place, self.new(place)) for place in places}
        await asyncio.gather(*(self._start(replica) for replica in self._replicas.values()))

    async def _start(self, replica: Replica) -> None:
        replica.processes = await replica.ask(self.deadline_s, "processes", "be placed")
        await self._start_engine(replica)

    async def _start_engine(self, replica: Replica) -> None:
        await replica.ask(self.deadline_s, "start", "start its engine")
        replica.state = "serving" if self.holds_weights else "started"

    def serve(self, replicas: Iterable[Replica]) -> None:
        """Replicas that hold the present weights may sample."""
        for replica in replicas:
            if replica.state != "lost":
                replica.state, replica.proven = "serving", True

    def lost(self, replica: Replica, reason: object) -> None:
        """End a failed replica, once, and start another in its place."""
        if replica.state in ("starting", "lost") or self._stopping:
            return
        self._failures[replica.place] = 0 if replica.proven else self._failures[replica.place] + 1
        replica.state = "lost"
        self.losses += 1
        self._last_reason = reason
        self._note_error(replica.place, reason)
        self.report(f"{replica.name} is lost{self._what_next()}: {reason}")
        self._coming[replica.place] = asyncio.ensure_future(self._replace(replica))

    def _what_next(self) -> str:
        if self._recurring:
            return ""
        return ", the others go on" if self.alive else ", and another is started in its place"

    def _note_error(self, place: int, reason: object) -> None:
        """The same error twice in the last engine, before any completion, ends the run."""
        if not isinstance(reason, EngineDied) or self.has_sampled:
            return
        if same_error(self._errors.get(place, ""), reason.error) and not self.alive:
            self._recurring = Recurring(
                f"an engine died of the same error twice, before any completion had come, and is not started again: {reason}"
            )
        self._errors[place] = reason.error

    def check(self) -> None:
        if self._recurring:
            raise self._recurring

    async def _replace(self, replica: Replica) -> None:
        await replica.end()
        if self._recurring:
            return
        if self.placement.is_extra(replica.place):
            self._give_up(replica.place)  # `grow` starts another where there is room
        else:
            await self._bring(replica.place)

    async def _bring(self, place: int) -> None:
        pause = _PAUSE_S
        while self._failures[place] < _FAILURES:
            replica = self._replicas[place] = Replica(place, self.new(place))
            try:
                replica.processes = await replica.ask(self.deadline_s, "processes", "be placed")
                async with self.starting:
                    await self._start_engine(replica)
                self.replacements += 1
                return
            except RunError as error:
                await replica.end()
                self._last_reason = error
                self._note_error(place, error)
                if self._recurring:
                    return
                if replica.processes is not None:
                    self._failures[place] += 1
                elif self.placement.is_extra(place):
                    break
                self.report(f"{replica.name} has not started yet: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._give_up(place)

    def _give_up(self, place: int) -> None:
        self._replicas.pop(place, None)
        if self.placement.is_extra(place):
            self.placement.leave(place)
        if self._failures[place] >= _FAILURES:
            self._given_up.add(place)
            self.report(f"rollout worker {place} is given up after {_FAILURES} failures in a row")

    def grow(self) -> None:
        """Start more workers where the cluster has room."""
        coming = {place for place, task in self._coming.items() if not task.done()}
        taken = self._replicas.keys() | coming | self._given_up
        for place in self.placement.extra_places(taken):
            self.report(f"the cluster has room for rollout worker {place}, which is started")
            self._coming[place] = asyncio.ensure_future(self._bring(place))

    async def ready(self) -> list[Replica]:
        """Replicas that can take a push, at least one. RunError when none starts in time or all places were given up."""
        self.check()
        for task in self._coming.values():
            if task.done():
                task.result()  # raises a bug
        if not self.alive:
            await within(self.deadline_s, "the rollout workers", "start again", self._first())
        return self.alive

    async def _first(self) -> None:
        while not self.alive:
            self.check()
            coming = {task for task in self._coming.values() if not task.done()}
            if not coming:
                raise RunError(f"no rollout worker is left; the last one was lost because: {self._last_reason}")
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """End all engines, also those that are starting."""
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
            self.report(f"while stopping: {error}")
            await replica.end()
