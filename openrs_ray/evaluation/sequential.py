"""Comparison of two models that stops sampling when it is decided, or hopeless (docs/evaluation.md).

Both models answer all problems once, then twice, then four times. At each of these looks the paired test over problems is made
at a level of its own. The levels of all looks and benchmarks add up to 5 %: by the union bound that is the most that false alarms
can be, and the least of 95 % that all intervals together cover, whenever one stops and however alike the looks are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import NormalDist
from typing import Literal, TypeVar

import numpy as np

from openrs_ray.evaluation.paired import Pair, compare
from openrs_ray.evaluation.power import PLANNED, Measured, smallest_difference
from openrs_ray.stats import Interval, normal_quantile

LEVEL = 0.05
"""Chance of a false alarm at any look at any benchmark."""
Mean = TypeVar("Mean", float, np.ndarray)
Outcome = Literal["better", "worse", "smaller", "hopeless", "open", "not shown", "not tested"]
"""smaller: less than the asked difference, either way. hopeless: a gain of the asked size would hardly be shown any more.
open: more samples are to be taken. not shown: there are no more. not tested: nor could enough be judged.
"""
_PLANNED_PROBLEMS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """A sequential comparison as it was asked for, before any sample."""

    samples: int
    """Of each problem and model, at most; two or more."""
    power: float = 0.8
    """Chance of showing the asked difference with all samples."""
    asked: float | None = None
    """The difference in accuracy to find, as a share of 1; None: the smallest that all samples can show."""
    comparisons: int = 1
    """Benchmarks that are compared, which share the level."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Samples of each problem at each look. Example: (1, 2, 4, 8, 16)"""
        return *takewhile(lambda samples: samples < self.samples, (2**power for power in range(64))), self.samples

    def level(self, samples: int) -> float:
        """Level of the look at so many samples, for one benchmark.

        Up to a share t of all samples, the looks spend t^2 of 5 % (K. Kim and D. L. DeMets, 1987, Biometrika 74:149-154).
        """
        before = max((look for look in self.looks if look < samples), default=0)
        return LEVEL * (samples**2 - before**2) / self.samples**2 / self.comparisons

    def difference(self, problems: float) -> float:
        """The difference to find on a benchmark of so many problems."""
        return self.asked or self.smallest(problems, self.samples)

    def smallest(self, problems: float, samples: int) -> float:
        """Smallest difference that the look at so many samples can show, as planned."""
        return smallest_difference(problems, samples, PLANNED, self.level(samples), self.power)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one benchmark."""

    samples: int
    """Of each problem and model."""
    level: float
    difference: Interval | None
    """Its interval at 1 - `level`; those of all looks hold together in 95 % of all cases. None: too many were not judged."""
    p: float | None
    """Of the test at this look; below `level` exactly where the interval leaves out 0."""
    chance: float | None
    """That all samples show a gain, were the true one as large as asked for; None at the last look."""
    outcome: Outcome

    @property
    def corrected(self) -> float | None:
        """p over all looks and benchmarks: below 5 % exactly where `p` is below `level`."""
        return None if self.p is None else min(1.0, self.p * LEVEL / self.level)


def look(pair: Pair, plan: Plan, seed: int = 0) -> Look:
    """Decide on the samples [problems, samples] of both models, whose number is one of the plan's looks.

    ValueError where no problem was judged on both sides.
    """
    samples, problems = pair.ours.shape[1], len(pair.ours)
    level, asked = plan.level(samples), plan.difference(problems)
    paired = compare([pair], seed, 1 - level)
    found = paired.difference
    if found.low > 0 or found.high < 0:
        outcome: Outcome = "better" if found.low > 0 else "worse"
    elif max(-found.low, found.high) < asked and plan.smallest(problems, samples) <= asked:
        outcome = "smaller"
    else:
        outcome = "open" if samples < plan.samples else "not shown"
    chance = None
    if samples < plan.samples:
        chance = chance_left(found.mean, asked, samples, plan, _variance(Measured.of(pair), samples))
        outcome = "hopeless" if outcome == "open" and chance < 1 - plan.power else outcome
    return Look(samples, level, found, paired.p, chance, outcome)


def undecidable(samples: int, plan: Plan) -> Look:
    """A look at samples of which too many could not be judged."""
    outcome: Outcome = "open" if samples < plan.samples else "not tested"
    return Look(samples, plan.level(samples), None, None, None, outcome)


def chance_left(mean: float, asked: float, samples: int, plan: Plan, variance: float) -> float:
    """Chance that the look at all samples shows a gain, were the true one `asked`; with samples so far of this mean.

    `variance` of that mean; in the best case, which is taken here, all of it shrinks with more samples. Conditional power (K. K.
    G. Lan, R. Simon and M. Halperin, 1982, Sequential Analysis 1:207-219): stopping below 1 - power leaves a power of at
    least 2 - 1 / power.
    """
    then, level = variance * samples / plan.samples, plan.level(plan.samples)
    return NormalDist().cdf(reach_left(mean, asked, variance, then, level))


def reach_left(mean: Mean, asked: float, now: float, then: float, level: float) -> Mean:
    """By how many standard errors the last look is expected to pass its bound, given the mean `mean` now.

    `now`, `then`: variance of the mean with the samples so far, and with all.
    """
    expected = asked + then / now * (mean - asked)
    return (expected - normal_quantile(1 - level) * math.sqrt(then)) / math.sqrt(then * (1 - then / now))


def _variance(measured: Measured, samples: int) -> float:
    """Variance of the mean difference; two problems as planned are added, so that it is never 0."""
    spread, planned = measured.spread, (PLANNED.within or 0.0) / samples
    whole = measured.problems * (spread.between + (spread.within or 0.0)) + _PLANNED_PROBLEMS * planned
    return whole / (measured.problems + _PLANNED_PROBLEMS) / measured.problems


def decided(looks: Sequence[Look]) -> bool:
    return bool(looks) and looks[-1].outcome != "open"


def outcome_text(last: Look, asked: float, plan: Plan) -> str:
    """Example: "after 4 of 16 samples: better" """
    points = f"{100 * asked:.1f} points"
    texts: dict[Outcome, str] = {
        "better": "better",
        "worse": "worse",
        "smaller": f"no difference of {points}",
        "hopeless": f"hopeless, all would show a gain of {points} in {100 * (last.chance or 0.0):.0f} % of all cases",
        "open": "not decided",
        "not shown": "no difference is shown",
        "not tested": "not tested, too many could not be judged",
    }
    return f"after {last.samples} of {plan.samples} samples: {texts[last.outcome]}"
