"""Groups that are sampled ahead of the learner, never further than the staleness bound.

Life of a position: admitted (its completions are requested at once) -> sampled and judged, completion by completion ->
ready -> taken by a step, or replaced. With P problems per step and staleness k:

- At most (k + 1) P positions are admitted and not yet trained and pushed: the trainer admits P more after each push. So nothing
  is sampled that gets too old, a slow learner bounds what lies here, and memory does not grow with the run.
- A step takes its P groups from the oldest admissions: with (k + 1) P admitted at first and P after every push, those taken
  at step s were admitted under version s - 1 - k or later, so no token is older than k when it is trained on. (Taking
  younger groups in an older one's place would leave more behind than the steps up to their age limit can take.)
- Among the groups of one admission it takes those that are ready; what a step must have and is not ready is waited for, while the
  engines go on with the younger ones.
- A group without spread that is to be replaced is dropped as soon as it is finished, and the next position gets its slot under
  the version of that moment, also while the learner works. The bound rests on how many admissions are of version v or older,
  for every v: that never grows when a younger one takes an older one's place. Nor does the number of slots in use
  change, so the last steps get what they need and nothing is left over after them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from actors.cluster.deadlines import within
from actors.loop.batch import Batch, Drawn, has_spread
from openrs_ray.records import Group, Problem
from openrs_ray.run.spans import traced

Sample = Callable[[int, Problem], Awaitable[Group]]
"""Samples and judges the group of a position."""


class GroupsAhead:
    """Life cycle: admit() and take() in turn, close() at the end.

    ahead = GroupsAhead(sample, problems_per_step=1, staleness=1, deadline_s=1800)
    ahead.admit([(0, problem), (1, other)], version=0)  # `ahead.free` was 2
    batch = await ahead.take(step=1)
    """

    def __init__(
        self,
        sample: Sample,
        problems_per_step: int,
        staleness: int,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        most_replaced: int = 0,
        draw: Callable[[int], Sequence[Drawn]] = lambda count: (),
    ) -> None:
        """Up to `most_replaced` groups a step are replaced by what `draw` gives, if they have no spread."""
        self._sample = sample
        self._per_step = problems_per_step
        self._slots = (staleness + 1) * problems_per_step
        self._deadline_s = deadline_s
        self._clock = clock
        self._most_replaced = most_replaced
        self._draw = draw
        self._replaced: list[Group] = []
        """Since the last step was taken."""
        self._version = 0
        """What the engines held at the last admission by the trainer: they have this one or a newer one."""
        self._admitted: dict[int, int] = {}
        """Version at admission, of every position that is not yet taken."""
        self._tasks: dict[int, asyncio.Task[Group]] = {}
        self._idle_since: float | None = self._clock()
        self._idle_s = 0.0

    def __len__(self) -> int:
        """Positions that are admitted and not yet taken."""
        return len(self._admitted)

    @property
    def free(self) -> int:
        """How many positions may be admitted now, when no step is under way."""
        return self._slots - len(self)

    @traced("admit", "version")
    def admit(self, drawn: Sequence[Drawn], version: int) -> None:
        """Start sampling these positions; the engines hold policy `version`."""
        self._version = version
        self._add_idle_time()
        for position, problem in drawn:
            self._admitted[position] = version
            self._tasks[position] = task = asyncio.ensure_future(self._finish(position, problem))
            task.add_done_callback(lambda _: self._note_idleness())
        self._note_idleness()

    async def _finish(self, position: int, problem: Problem) -> Group:
        group = await self._sample(position, problem)
        self._replace_uniform(group)
        return group

    def _replace_uniform(self, group: Group) -> None:
        if len(self._replaced) < self._most_replaced and not has_spread(group):
            drawn = self._draw(1)
            del self._admitted[group.position], self._tasks[group.position]
            self._replaced.append(group)
            self.admit(drawn, self._version)

    def idle_seconds(self) -> float:
        """Since the last call: how long there was nothing to sample."""
        self._add_idle_time()
        self._note_idleness()
        seconds, self._idle_s = self._idle_s, 0.0
        return seconds

    def _note_idleness(self) -> None:
        if self._idle_since is None and all(task.done() for task in self._tasks.values()):
            self._idle_since = self._clock()

    def _add_idle_time(self) -> None:
        if self._idle_since is not None:
            self._idle_s += self._clock() - self._idle_since
        self._idle_since = None

    async def take(self, step: int) -> Batch:
        """The groups of a step, from the oldest admissions; waits for those that are not finished.

        With those replaced since the last step; from here on as many more may be.

        Raises:
            RunError: a group failed, or the deadline passed.
        """
        what = f"finish {self._per_step} groups for step {step} (rollout.deadline_s is {self._deadline_s:.0f})"
        chosen = await within(self._deadline_s, "the rollout workers", what, self._finished())
        for position in chosen:
            del self._admitted[position]
        batch = Batch([self._tasks.pop(position).result() for position in sorted(chosen)], self._replaced)
        self._replaced = []
        for task in [task for task in self._tasks.values() if task.done()]:
            self._replace_uniform(task.result())
        return batch

    async def _finished(self) -> list[int]:
        while True:
            done = {position for position, task in self._tasks.items() if task.done()}
            for position in done:
                self._tasks[position].result()  # what failed is said at once, not when its turn comes
            # Oldest admission first, and within it those that are ready.
            order = sorted(
                self._admitted, key=lambda position: (self._admitted[position], position not in done, position)
            )
            if done.issuperset(order[: self._per_step]):
                return order[: self._per_step]
            pending = [task for task in self._tasks.values() if not task.done()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Give up what is being sampled."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        self._admitted.clear()
