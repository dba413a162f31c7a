"""Follows the figure of one rule over the steps of a run."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from openrs_ray.config.guard import Guard
from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.noise import LEAST, departure_by_noise
from openrs_ray.guard.rules import MEASURES, Line, Measure, number
from openrs_ray.run.step_settings import StepSettings

_ACCURACY = (("accuracy", "low", "high"), ("mean_reward", "low", "high"))


@dataclass
class Follower:
    """One rule of `MEASURES`. The first steps make the baseline and break nothing; the window begins after them.

    Where the baseline is the best window, windows begin with the first step.
    """

    rule: str
    config: RunConfig
    nearest: float | None = None
    """How near a window has come to the bound: 0 at the baseline, from 1 on the rule is broken, if the steps are not excused.

    None: no window was looked at.
    """
    _first: list[float] = field(default_factory=list)
    _best: float | None = None
    """Mean of the best window."""
    _figures: list[float] = field(default_factory=list)
    """Of all steps so far, where their noise counts."""
    _recent: deque[tuple[int, float, bool]] = field(init=False)
    """Step, figure, excused."""
    _in_a_row: int = 0
    _stage: dict[str, float] = field(default_factory=dict)
    """Settings of the present stage."""
    _mixed: int = 0
    """Steps to come that may train on completions of the stage before."""

    def __post_init__(self) -> None:
        self._recent = deque(maxlen=self.window)

    @property
    def guard(self) -> Guard:
        return self.config.guard

    @property
    def measure(self) -> Measure:
        return MEASURES[self.rule]

    @property
    def window(self) -> int:
        return self.guard.rule(self.rule).window

    def step(self, line: Line) -> Alarm | None:
        """Note a step; an alarm where it breaks the rule."""
        self._begin_stage(StepSettings.recorded(line, self.config).of_stage)
        value = self.measure.figure(line, self.config)
        if self._mixed:
            self._mixed -= 1
            return None
        if value is None:
            return None
        if self.measure.noisy:
            self._figures.append(value)
        if len(self._first) < self.guard.baseline_steps and not self.measure.of_best:
            self._first.append(value)
            return None
        self._recent.append((int(line["step"]), value, self.measure.excused(line)))
        known = len(self._recent) == self.window and (len(self._figures) >= LEAST or not self.measure.noisy)
        return self._looked_at() if known else None

    def _begin_stage(self, stage: dict[str, float]) -> None:
        """`stage`: settings of a step; a resume may have changed those of the stage that the run is in."""
        if self.measure.by_stage and self._stage and stage != self._stage:
            self._first, self._best, self._figures, self._in_a_row = [], None, [], 0
            self._mixed = self.config.rollout.staleness
            self._recent.clear()
        self._stage = stage

    def _looked_at(self) -> Alarm | None:
        mean = fmean(value for _, value, _ in self._recent)
        if self.measure.of_best:
            self._best = mean if self._best is None else max(self._best, mean)
        baseline = fmean(self._first) if self._best is None else self._best
        limit: float = getattr(self.guard.rule(self.rule), "limit")  # noqa: B009
        if self.measure.noisy:
            steps = None if self.measure.of_best else len(self._first)
            limit = max(limit, departure_by_noise(self._figures, self.window, steps))
        bound = self.measure.bound(limit, baseline)
        excused = any(each for *_, each in self._recent)
        if not excused and bound != baseline:
            self.nearest = max(self.nearest or 0.0, (mean - baseline) / (bound - baseline))
        if excused or not self.measure.broken(mean, bound):
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        return self._alarm(mean, bound, baseline)

    def _alarm(self, mean: float, bound: float, baseline: float) -> Alarm:
        first, last = self._recent[0][0], self._recent[-1][0]
        text, which = self.measure.text, "best window" if self.measure.of_best else "first steps"
        side = "above" if self.measure.above else "below"
        return Alarm(
            rule=self.rule,
            step=last,
            since=max(0, first - 1 - self.config.rollout.staleness),
            value=mean,
            bound=bound,
            baseline=baseline,
            window=self.window,
            in_a_row=self._in_a_row,
            text=f"{self.measure.words} was {text(mean)} over steps {first} to {last}, {side} {text(bound)} ({which}: "
            f"{text(baseline)})",
        )


@dataclass
class HeldOutFollower:
    """The rule `held_out`: an evaluation whose interval lies below that of an earlier one."""

    guard: Guard
    _best: tuple[int, float, float] | None = None
    """Step, mean and lower end of the best evaluation so far, by its lower end."""
    _in_a_row: int = 0
    _newest: int | None = None
    """Step of the newest evaluation."""
    _before: tuple[tuple[int, float, float] | None, int] = (None, 0)
    """Best evaluation and row without the newest one, which a resume may repeat."""

    @property
    def best(self) -> int | None:
        """Step of the best evaluation; a later fall leaves no policy after it above doubt."""
        return None if self._best is None else self._best[0]

    def evaluation(self, line: Line) -> Alarm | None:
        """Note an evaluation, in the place of an earlier one of the same step; an alarm where it breaks the rule."""
        step, score = int(line["step"]), _score(line)
        if score is None:
            return None
        if step == self._newest:
            self._best, self._in_a_row = self._before
        self._newest, self._before = step, (self._best, self._in_a_row)
        mean, low, high = score
        best, bound = self._best, -float("inf")
        if best is None or low > best[2]:
            self._best = step, mean, low
        if best is not None:
            bound = best[2] - self.guard.held_out.limit
        self._in_a_row = self._in_a_row + 1 if high < bound else 0
        if best is None or not self._in_a_row:
            return None
        return Alarm(
            rule="held_out",
            step=step,
            since=best[0] + 1,
            value=mean,
            bound=bound,
            baseline=best[1],
            window=1,
            in_a_row=self._in_a_row,
            text=f"the held-out problems gave {mean:.3f} [{low:.3f}, {high:.3f}] after step {step}, below the {best[1]:.3f} of "
            f"step {best[0]}, whose interval begins at {best[2]:.3f}",
        )


def _score(line: Line) -> Sequence[float] | None:
    """Mean and ends of the interval."""
    for names in _ACCURACY:
        values = [number(line, name) for name in names]
        if all(value is not None for value in values):
            return [value for value in values if value is not None]
    return None
