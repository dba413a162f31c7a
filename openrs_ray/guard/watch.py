"""Watches a run: the alarms of each step and evaluation, and which checkpoints they leave in doubt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.followers import Follower, HeldOutFollower
from openrs_ray.guard.rules import MEASURES, Line


@dataclass
class Watch:
    """Follows the lines of `metrics.jsonl` that count, in order; the same lines give the same alarms, also after a resume."""

    config: RunConfig
    doubtful: set[int] = field(default_factory=set)
    """Policy versions that alarms are about."""
    _followers: list[Follower] = field(init=False)
    _held_out: HeldOutFollower | None = field(init=False)

    def __post_init__(self) -> None:
        guard = self.config.guard
        self._followers = [Follower(rule, self.config) for rule in MEASURES if guard.action_of(rule) != "off"]
        self._held_out = HeldOutFollower(guard) if guard.action_of("held_out") != "off" else None

    def step(self, line: Line) -> list[Alarm]:
        return self._noted(follower.step(line) for follower in self._followers)

    def evaluation(self, line: Line) -> list[Alarm]:
        return self._noted([self._held_out.evaluation(line)] if self._held_out else [])

    def _noted(self, found: Iterable[Alarm | None]) -> list[Alarm]:
        alarms = [alarm for alarm in found if alarm is not None]
        for alarm in alarms:
            self.doubtful.update(range(alarm.since, alarm.step + 1))
        return alarms

    @property
    def nearest(self) -> dict[str, float]:
        """Nearness of the run to the bound of each rule that looked at a window (`Follower.nearest`)."""
        return {each.rule: each.nearest for each in self._followers if each.nearest is not None}

    @property
    def lag(self) -> int:
        """Steps after which a checkpoint that no alarm is about counts as good: so late may the rules of a window find out."""
        rules = [self.config.guard.rule(follower.rule) for follower in self._followers]
        return self.config.rollout.staleness + max((rule.window + rule.patience for rule in rules), default=0)

    def needed(self, checkpoints: Sequence[int], step: int) -> set[int]:
        """Steps of the checkpoints, out of these in order, that a rollback after `step` or later may need; at most three.

        The newest one that the rules of a window have had the time to doubt, and the one after it, which takes its place in time;
        and the newest one up to the best evaluation, since a fall of the held-out figures puts all later ones in doubt.
        """
        good = [known for known in checkpoints if known not in self.doubtful]
        proven = [known for known in good if known <= step - self.lag]
        waiting = [known for known in good if known > step - self.lag]
        best = self._held_out.best if self._held_out else None
        healthy = [known for known in good if best is not None and known <= best]
        return {*proven[-1:], *waiting[:1], *healthy[-1:]}
