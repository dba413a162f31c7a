"""Groups that are sampled for this step and the next ones, never further ahead than `rollout.staleness`.

A position is admitted, then sampled (all its completions are requested at once, for at most `rollout.in_flight` positions at a
time), then ready (sampled and judged), then taken by a step or replaced. With P problems per step and staleness k:

- At most (k + 1) P positions are admitted and not yet trained and pushed. A step takes positions of the oldest admission first;
  within one admission, those that are ready first.
- Positions begin in the order of their admission, so that a step never waits for one that is queued behind a younger one.
- A replaced position's slot goes to the next position, recorded under the version of the last admission by a step. With
  staleness 0, groups are replaced in rounds, when all admitted ones are finished: requests then meet idle engines, and a step
  samples the same bits however long judging took.
- A position is drawn and sampled with the settings of the step that admits it, also where a later step trains on it.

docs/performance.md (Running ahead) shows why no token is then older than k versions.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from actors.cluster.deadlines import within
from actors.loop.batch import Batch, has_spread
from openrs_ray.config.rollout import Rollout
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.data.prompt_lengths import PromptLengths
from openrs_ray.data.rests import Rests
from openrs_ray.records import Group, Problem
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import traced
from openrs_ray.run.step_settings import StepSettings

Drawn = tuple[int, Problem]
"""A position and its problem."""


def drawing(
    config: RunConfig,
    problems: Sequence[Problem],
    progress: Progress,
    rests: Rests | None = None,
    lengths: PromptLengths | None = None,
) -> Iterator[Drawn]:
    """Positions that `progress` has not used, in order, without those of prompts unfit for the stage or problems at rest."""
    mixture = Mixture.of(config.run.seed, config.tasks, Counter(problem.task for problem in problems))
    used = {*progress.ahead}
    for position in itertools.count(progress.position):
        if position in used or (lengths and lengths.pass_over(position)) or (rests and rests.pass_over(position)):
            continue
        yield position, problems[mixture.index(position)]


@dataclass(eq=False)
class Lookahead:
    """Life cycle: take() step by step, close() at the end."""

    collect: Callable[[int, Problem, StepSettings], Awaitable[Group]]
    """Samples and judges the group of a position, with settings."""
    drawn: Iterator[Drawn]
    """Positions that are still to be used, in order."""
    rollout: Rollout
    last_step: int
    """Nothing is admitted for later ones."""
    settings: StepSettings
    """Of the first step."""
    clock: Callable[[], float] = time.monotonic
    rests: Rests = field(default_factory=Rests)
    """Has what `drawn` passed over, as `lengths`."""
    lengths: PromptLengths = field(default_factory=PromptLengths)

    def __post_init__(self) -> None:
        self._version = 0  # in the engines at the last admission by a step; they have this one or a newer one
        self._admitted: dict[int, int] = {}  # version at admission, of every position that is not yet taken
        self._settings = self.settings  # of the last admission by a step
        self._waiting: deque[tuple[Drawn, StepSettings]] = deque()  # admitted, but not requested yet
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ready: dict[int, Group] = {}
        self._uniform: set[int] = set()  # ready positions with equal rewards that may be replaced
        self._ended = asyncio.Event()  # set when a task has ended since `take` last looked
        self._replaced: list[Group] = []  # since the last step was taken
        self._idle_since: float | None = self.clock()
        self._idle_s = 0.0

    def __len__(self) -> int:
        """Positions admitted and not yet taken."""
        return len(self._admitted)

    @property
    def ready(self) -> int:
        """Positions that are sampled and judged, and not yet taken."""
        return len(self._ready)

    async def take(self, step: int, settings: StepSettings | None = None) -> Batch:
        """Fill the free slots; return the step's groups, and those replaced since the last step.

        `settings`: for what it admits; None for those of the step before.

        RunError when a group failed or the deadline passed (with staleness 0, that of one round of replacements).
        """
        self.idle_seconds()  # what passed between the steps is not counted
        count, deadline_s = self.rollout.problems_per_step, self.rollout.deadline_s
        steps = min(self.rollout.staleness + 1, self.last_step - step + 1)
        self._settings = settings or self._settings
        self.lengths.bounds = self._settings.min_prompt_tokens, self._settings.max_prompt_tokens
        self.admit(itertools.islice(self.drawn, max(0, steps * count - len(self))), step - 1)
        what = f"finish {count} groups for step {step} (rollout.deadline_s is {deadline_s:.0f})"
        while not (chosen := await within(deadline_s, "the rollout workers", what, self._finished())):
            pass  # a round has ended
        groups = [self._ready.pop(position) for position in sorted(chosen)]
        batch = Batch(groups, self._replaced, self.rests.take(), self.lengths.take())
        self._uniform.difference_update(chosen)
        for position in chosen:
            del self._admitted[position], self._tasks[position]
        self._replaced = []
        self._replace_uniform()
        return batch

    @traced("admit", "version")
    def admit(self, drawn: Iterable[Drawn], version: int) -> None:
        """Sample these positions as soon as `rollout.in_flight` allows; the engines hold policy `version`."""
        self._version = version
        self._add_idle_time()
        for position, problem in drawn:
            self._admitted[position] = version
            self._waiting.append(((position, problem), self._settings))
        self._begin()
        self._note_idleness()

    def _begin(self) -> None:
        """Request waiting positions in the order of their admission, as far as `rollout.in_flight` allows."""
        most = self.rollout.in_flight or len(self)
        while self._waiting and len(self._tasks) - len(self._ready) < most:
            (position, problem), settings = self._waiting.popleft()
            self._tasks[position] = task = asyncio.ensure_future(self._finish(position, problem, settings))
            task.add_done_callback(self._note_end)

    def _note_end(self, _: asyncio.Task[None]) -> None:
        self._ended.set()
        self._note_idleness()

    async def _finish(self, position: int, problem: Problem, settings: StepSettings) -> None:
        self._ready[position] = group = await self.collect(position, problem, settings)
        if self.rollout.most_drawn_per_step > self.rollout.problems_per_step and not has_spread(group):
            self._uniform.add(position)
        self._replace_uniform()
        self._begin()

    def _replace_uniform(self) -> None:
        """Replace ready groups without spread, as many as this step still may."""
        room = self.rollout.most_drawn_per_step - self.rollout.problems_per_step - len(self._replaced)
        if not room or (self.rollout.staleness == 0 and len(self._ready) < len(self)):
            return
        uniform = sorted(self._uniform)[:room]
        self._uniform.difference_update(uniform)
        for position in uniform:
            del self._admitted[position], self._tasks[position]
            self._replaced.append(self._ready.pop(position))
        if uniform:
            self.admit(itertools.islice(self.drawn, len(uniform)), self._version)

    async def _finished(self) -> list[int]:
        """Positions that a step takes; none after a round of replacements, which has a deadline of its own."""
        replaced = len(self._replaced)
        while True:
            for task in self._tasks.values():
                if task.done():
                    task.result()  # a failure is raised at once, not when its turn comes
            if self.rollout.staleness == 0 and len(self._replaced) > replaced:
                return []
            if len(self._ready) >= self.rollout.problems_per_step and (due := self._due()):
                return due
            self._ended.clear()
            await self._ended.wait()

    def _due(self) -> list[int]:
        """Positions that the next step takes, once all of them are ready: by admission, and within one the ready ones first."""
        order = sorted(self._admitted, key=lambda at: (self._admitted[at], at not in self._ready, at))
        due = order[: self.rollout.problems_per_step]
        return due if self._ready.keys() >= {*due} else []

    def idle_seconds(self) -> float:
        """Seconds without anything to sample, since the last call."""
        self._add_idle_time()
        self._note_idleness()
        seconds, self._idle_s = self._idle_s, 0.0
        return seconds

    def _note_idleness(self) -> None:
        if self._idle_since is None and all(task.done() for task in self._tasks.values()):
            self._idle_since = self.clock()

    def _add_idle_time(self) -> None:
        if self._idle_since is not None:
            self._idle_s += self.clock() - self._idle_since
        self._idle_since = None

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for kept in (self._waiting, self._tasks, self._admitted, self._ready, self._uniform):
            kept.clear()
