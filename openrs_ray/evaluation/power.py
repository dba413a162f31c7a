"""The smallest difference that a comparison can show (docs/evaluation.md has the formula)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from openrs_ray.evaluation.paired import Pair
from openrs_ray.stats import normal_quantile

MORE = 4
"""Factor of the samples in the second figure."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a problem's difference between two models."""

    between: float
    """Variance of the true differences, over problems."""
    within: float | None
    """Variance of one sample about its problem's chance, summed over both models; None where unknown."""


PLANNED = Spread(between=0.0, within=2 * 0.5 * 0.25)
"""Before anything is measured: the same gain in each problem, half of all answers right, half of their variance within
problems (re-evaluations of six 1.5B models: 0.11 of 0.21 for AIME24, 0.09 of 0.20 for AMC23).
"""


def smallest_difference(
    problems: float, samples: int, spread: Spread = PLANNED, level: float = 0.05, power: float = 0.8
) -> float:
    """The difference that a two-sided test at `level` finds with `power`. Example: 0.066 for AIME24's 30 problems x 16

    At 5 %, n counts as 1.96^2 / 2 fewer (W. C. Guenther, 1981, The American Statistician 35:243-244).
    """
    critical = normal_quantile(1 - level)
    reach, fewer = critical + NormalDist().inv_cdf(power), critical**2 / 2
    variance = spread.between + (spread.within or 0.0) / samples
    return min(1.0, reach * math.sqrt(variance / (problems - fewer))) if problems > fewer else 1.0


def average_difference(parts: Sequence[float]) -> float:
    """Smallest difference of the average over benchmarks, from that of each."""
    return math.sqrt(sum(part**2 for part in parts)) / len(parts)


@dataclass(frozen=True, slots=True)
class Measured:
    """Power of one comparison."""

    problems: float
    """Clusters count as the clusters of equal size that they are worth."""
    completions: int
    spread: Spread
    """`within`: after averaging the samples."""

    @classmethod
    def of(cls, pair: Pair) -> "Measured":
        """With one sample per problem all variance counts as that between problems."""
        differences, clusters = pair.differences()
        centred = np.bincount(clusters, differences - differences.mean())
        sizes = np.bincount(clusters)
        alike = float((sizes**2).sum()) / len(differences)
        problems = len(differences) / alike
        variance = float((centred**2).sum()) / len(differences) / alike * len(sizes) / max(1, len(sizes) - 1)
        sides, completions = (pair.ours, pair.theirs), pair.ours.size + pair.theirs.size
        if min(side.shape[1] for side in sides) < 2:
            return cls(problems, completions, Spread(variance, None))
        within = sum(_error_of_means(side) for side in sides) / alike
        return cls(problems, completions, Spread(max(0.0, variance - within), within))

    def smallest(self, times: int = 1) -> float | None:
        """Smallest difference with `times` as many samples; None where unknown."""
        if times > 1 and self.spread.within is None:
            return None
        return smallest_difference(self.problems, times, self.spread)


def _error_of_means(scores: np.ndarray) -> float:
    """Variance of the mean of a problem's samples, averaged over problems with two judged ones or more."""
    judged = np.sum(~np.isnan(scores), axis=1)
    several = scores[judged >= 2]
    if not len(several):
        return 0.0
    return float((np.nanvar(several, axis=1, ddof=1) / judged[judged >= 2]).mean())


@dataclass(frozen=True, slots=True)
class Rate:
    """Cost of a completion."""

    hours: float
    dollars: float
    """0 where no price is known."""

    def text(self, completions: float) -> str:
        """Example: "about 1.5 h, $ 0.66" """
        money = f", $ {self.dollars * completions:,.2f}" if self.dollars else ""
        return f"about {self.hours * completions:,.1f} h{money}"


def plan_lines(sizes: Mapping[str, int], samples: int, models: int, rate: Rate | None = None) -> list[str]:
    """Smallest difference of each benchmark and the cost of more samples. `sizes`: problems by title."""
    head = (
        f"Smallest differences that show with {samples} sample{'s' * (samples > 1)} of each problem (80 % power, a false alarm "
        "in 5 %, the same gain in all problems):"
    )
    lines, parts = [], []
    for title, problems in sizes.items():
        now, more = (smallest_difference(problems, samples * times) for times in (1, MORE))
        parts.append((now, more))
        extra = (MORE - 1) * samples * problems * models
        cost = f" ({rate.text(extra)})" if rate else ""
        lines.append(
            f"  {title}, {problems:,} problems: about {100 * now:.1f} points; with {MORE * samples} samples {100 * more:.1f}, "
            f"for {extra:,} more completions{cost}"
        )
    if len(parts) > 1:
        now, more = (average_difference(several) for several in zip(*parts, strict=True))
        lines.append(f"  average: about {100 * now:.1f} points; with {MORE * samples} samples {100 * more:.1f}")
    return [head, *lines]
