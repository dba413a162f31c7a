"""Statistical power: the smallest difference that a comparison can show, before it is paid for and afterwards.

Two models are compared problem by problem, with k samples of each. The difference of a problem has the variance

    b + w / k        b: of the true differences over the problems, w: of one sample of either model about its problem's chance

and the mean over n problems (b + w / k) / n. A test at 5 % finds a true mean difference of (1.96 + 0.84) standard errors in 80 %
of all cases: the smallest difference that can be counted on. Since the variance is not known but estimated, n counts as
1.96^2 / 2 problems fewer (W. C. Guenther, 1981, The American Statistician 35:243-244).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from openrs_ray.evaluation.paired import Pair

_REACH = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
_FEWER = NormalDist().inv_cdf(0.975) ** 2 / 2

MORE = 4
"""So many times the samples are shown beside what is planned: half the smallest difference where samples are all that counts."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a problem's difference between two models. Example: Spread(between=0.004, within=0.21)"""

    between: float
    """Of the true differences, over problems."""
    within: float | None
    """Of what is sampled once about the problem's chance, summed over both models; None where it is not known."""


PLANNED = Spread(between=0.0, within=2 * 0.5 * 0.25)
"""Assumed before anything is measured: the gain is the same in each problem, half of all answers are right, and half of their
variance lies within problems (independent re-evaluations of six 1.5B models: 0.11 of 0.21 for AIME24, of 0.20 for AMC23 0.09).
A gain in a few problems alone needs more."""


def smallest_difference(problems: float, samples: int, spread: Spread = PLANNED) -> float:
    """Smallest mean difference that is found with 80 % power, as a share. Example: 0.066 for AIME24's 30 problems x 16"""
    variance = spread.between + (spread.within or 0.0) / samples
    return min(1.0, _REACH * math.sqrt(variance / (problems - _FEWER))) if problems > _FEWER else 1.0


def average_difference(parts: Sequence[float]) -> float:
    """Smallest difference of the plain average over benchmarks, from that of each."""
    return math.sqrt(sum(part**2 for part in parts)) / len(parts)


@dataclass(frozen=True, slots=True)
class Measured:
    """Power of one comparison as it was measured. Example: Measured(problems=30, completions=960, Spread(0.004, 0.013))"""

    problems: float
    """Where problems come in clusters: the clusters of equal size that they are worth."""
    completions: int
    """Of both models."""
    spread: Spread
    """`within`: what is left after averaging the samples that there are."""

    @classmethod
    def of(cls, pair: Pair) -> "Measured":
        """Spread of what was judged. With one sample of each problem all variance counts as that between problems."""
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
        """Smallest difference with so many times the samples; None where that cannot be known."""
        if times > 1 and self.spread.within is None:
            return None
        return smallest_difference(self.problems, times, self.spread)


def _error_of_means(scores: np.ndarray) -> float:
    """Variance of the mean of a problem's samples about its chance, averaged over problems with two judged ones or more."""
    judged = np.sum(~np.isnan(scores), axis=1)
    several = scores[judged >= 2]
    if not len(several):
        return 0.0
    return float((np.nanvar(several, axis=1, ddof=1) / judged[judged >= 2]).mean())


@dataclass(frozen=True, slots=True)
class Rate:
    """Cost of a completion so far. Example: Rate(hours=0.0004, dollars=0.0002)"""

    hours: float
    dollars: float
    """0 where no price is known."""

    def text(self, completions: float) -> str:
        """Price of so many more. Example: "about 1.5 h, $ 0.66" """
        money = f", $ {self.dollars * completions:,.2f}" if self.dollars else ""
        return f"about {self.hours * completions:,.1f} h{money}"


def plan_lines(sizes: Mapping[str, int], samples: int, models: int, rate: Rate | None = None) -> list[str]:
    """Smallest difference that a comparison of two models can show, and what more samples would cost, one line per benchmark.

    Args:
        sizes: problems by the benchmark's title.
        models: how many are sampled.
        rate: of completions that were sampled already, where there are any.
    """
    head = (
        f"Smallest differences that {samples} samples of each problem show (80 % power, a false alarm in 5 %, the same gain "
        "in all problems):"
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
