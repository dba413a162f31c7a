"""Difficulty pools: a problem that was solved always, or never, in its last visits is at rest for some epochs.

Whether a position is passed over is decided when it is drawn, by the results of the steps written until then. At staleness 0
those are all steps before, so that a run decides the same however often it is killed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openrs_ray.config.task import Task
from openrs_ray.data.order import Mixture, Place
from openrs_ray.records import Group, Status

Streak = tuple[int, int]
"""Last visits with one outcome, and the epoch of the newest. Example: (3, 2): solved always in 3 visits; (-3, 2): never."""
Streaks = Mapping[int, Streak]
"""By problem; none for a problem whose last visit was solved in part."""


@dataclass(frozen=True, slots=True)
class RestRule:
    """Example: RestRule(after=3, epochs=2)"""

    after: int
    """Visits of one outcome."""
    epochs: int

    def rests(self, streak: Streak, epoch: int) -> bool:
        visits, last = streak
        return abs(visits) >= self.after and epoch <= last + self.epochs


@dataclass(frozen=True, slots=True)
class Rested:
    """A position that was passed over, and why."""

    position: int
    place: Place
    streak: Streak
    after_step: int
    """Last step whose results were known."""

    @property
    def solved(self) -> str:
        return "always" if self.streak[0] > 0 else "never"


class Rests:
    """Decides which positions are passed over, and keeps those until they are recorded."""

    def __init__(
        self, mixture: Mixture | None = None, tasks: Sequence[Task] = (), streaks: Streaks | None = None, step: int = 0
    ) -> None:
        """`streaks`: as of `step`, from which an attempt starts."""
        self._mixture = mixture
        self._rules = {
            task.name: RestRule(task.data.rest_after, task.data.rest_for) for task in tasks if task.data.rest_after
        }
        self._streaks: Streaks = streaks or {}
        self._step = step
        self._passed = list[Rested]()
        self._said = set[str]()

    @property
    def active(self) -> bool:
        return bool(self._rules)

    def pass_over(self, position: int) -> bool:
        """True, and noted, for a position whose problem is at rest."""
        if self._mixture is None or not self._rules:
            return False
        place = self._mixture.place(position)
        rule, streak = self._rules.get(place.task), self._streaks.get(place.problem)
        if rule is None or streak is None or not rule.rests(streak, place.epoch):
            return False
        self._passed.append(Rested(position, place, streak, self._step))
        return True

    def take(self) -> list[Rested]:
        """Positions passed over since the last call."""
        passed, self._passed = self._passed, []
        return passed

    def settle(self, streaks: Streaks, step: int) -> None:
        """From now on, decide by the results of this step, too."""
        self._streaks, self._step = streaks, step

    def after(self, streaks: Streaks, groups: Iterable[Group]) -> dict[int, Streak]:
        """Streaks after the groups of a step."""
        visits = ((group.position, outcome([verdict.status for verdict in group.verdicts])) for group in groups)
        return self.after_visits(streaks, visits)

    def after_visits(self, streaks: Streaks, visits: Iterable[tuple[int, int | None]]) -> dict[int, Streak]:
        """`visits`: position and outcome of each group of a step."""
        changed = dict(streaks)
        if self._mixture is None or not self._rules:
            return changed
        for position, solved in sorted(visits):
            place = self._mixture.place(position)
            if place.task in self._rules and solved is not None:
                _visit(changed, place, solved)
        return changed

    def all_at_rest(self) -> list[str]:
        """Tasks of which no problem is left, each once: those that have been at rest for longest are drawn again."""
        if self._mixture is None:
            return []
        resting = dict.fromkeys(self._rules, 0)
        for problem, (visits, _) in self._streaks.items():
            task = self._mixture.task_of(problem)
            resting[task] += abs(visits) >= self._rules[task].after
        sizes = {part.name: part.problems for part in self._mixture.parts}
        found = [task for task, count in resting.items() if count == sizes[task] and task not in self._said]
        self._said.update(found)
        return found


def outcome(statuses: Sequence[Status]) -> int | None:
    """1 where all judged completions are right, -1 where none is, else 0; None where none was judged."""
    judged = [status is Status.CORRECT for status in statuses if status.judged]
    if not judged:
        return None
    return 1 if all(judged) else 0 if any(judged) else -1


def _visit(streaks: dict[int, Streak], place: Place, solved: int) -> None:
    visits, last = streaks.pop(place.problem, (0, place.epoch))
    if solved:
        same = visits * solved > 0
        streaks[place.problem] = (visits + solved if same else solved, max(last, place.epoch))


def nothing_left(task: str, step: int) -> str:
    of_it = f" of task {task}" if task else ""
    return (
        f"after step {step}, each problem{of_it} was solved always or never in its last visits, as data.rest_after counts "
        "them: those at rest for longest are drawn again, and there is little left to learn from"
    )
