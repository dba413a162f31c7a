"""Is one model better than another? A paired test per problem on each benchmark, corrected for the number of benchmarks.

The interval of the difference is the test turned around: it holds exactly the differences that the test does not refuse. So
interval and p-value never disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from openrs_ray.stats import Interval

_EXACT_DIFFERENCES = 16
"""Up to so many differences that are not 0, all 2^n sign patterns are counted instead of drawn."""
_DRAWS = 100_000
_BLOCK = 1000
_ROUNDING = 1e-12
"""Sums of the same numbers in another order are the same."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One model against another on the same problems. Example: Paired(Interval(0.031, 0.004, 0.058), p=0.03, corrected=0.09)"""

    difference: Interval
    """Mean difference of avg@k per problem."""
    p: float
    """Two-sided p-value of the sign-flip permutation test; below 0.05 exactly where the interval leaves out 0."""
    corrected: float
    """The same after Holm's correction over all benchmarks that were compared."""
    bounds: tuple[float, float] | None = None
    """The mean difference, were all unjudged completions decided against and for the first model; None where all were judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two models on one benchmark: float [problems, samples], NaN where not judged; the numbers of samples may differ."""

    ours: np.ndarray
    theirs: np.ndarray
    clusters: np.ndarray | None = None
    """[problems], equal for problems that belong together (default: none do)."""

    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Difference and cluster of each problem that was judged on both sides. ValueError if there is none."""
        judged = ~(np.isnan(self.ours).all(axis=1) | np.isnan(self.theirs).all(axis=1))
        if not judged.any():
            raise ValueError("no problem was judged for both models")
        differences = np.nanmean(self.ours[judged], axis=1) - np.nanmean(self.theirs[judged], axis=1)
        clusters = np.arange(len(judged)) if self.clusters is None else self.clusters
        return differences, np.unique(clusters[judged], return_inverse=True)[1]

    def bounds(self) -> tuple[float, float]:
        """The mean difference with all that is unjudged decided against our model, and for it."""
        ours, theirs = ([np.nan_to_num(side, nan=x).mean() for x in (0.0, 1.0)] for side in (self.ours, self.theirs))
        return float(ours[0] - theirs[1]), float(ours[1] - theirs[0])

    @property
    def complete(self) -> bool:
        return not (np.isnan(self.ours).any() or np.isnan(self.theirs).any())


def compare(pairs: Sequence[Pair], seed: int = 0, confidence: float = 0.95) -> Paired:
    """Compare on one benchmark, or on the plain average of several, with a test that is stratified by benchmark.

    Problems are flipped within their benchmark and weigh 1 / (problems of it) / (benchmarks) each. Problems without a judged
    sample on either side are left out. `corrected` is still equal to `p`. ValueError if a benchmark has no problem left.
    """
    sums, weights = [], []
    for pair in pairs:
        differences, clusters = pair.differences()
        weight = 1 / len(differences) / len(pairs)
        sums.append(np.bincount(clusters, differences) * weight)
        weights.append(np.bincount(clusters) * weight)
    flips = SignFlips.draw(np.concatenate(sums), np.concatenate(weights), np.random.default_rng(seed))
    low, high = np.mean([pair.bounds() for pair in pairs], axis=0)
    p = flips.p()
    return Paired(
        flips.interval(confidence), p, p, None if all(pair.complete for pair in pairs) else (float(low), float(high))
    )


@dataclass(frozen=True, slots=True, eq=False)
class SignFlips:
    """The sign-flip permutation test of a weighted mean, for every hypothetical mean at once.

    Were the true mean d, each x - d could as well have the other sign. With the signs of a set A of the x flipped, the sum of
    the x - d is as far from 0 as it was exactly if d lies between the mean of A and the mean of the rest. So a pattern of signs
    is a range of d in which it counts, the p-value of d is the share of patterns whose range holds it, and the d with a
    p-value of at least 5 % are an interval.
    """

    mean: float
    lows: np.ndarray
    """float [patterns]: where the ranges begin; the pattern without flips, among them, counts everywhere."""
    highs: np.ndarray

    @classmethod
    def draw(cls, sums: np.ndarray, weights: np.ndarray, rng: np.random.Generator, draws: int = _DRAWS) -> "SignFlips":
        """`sums` and `weights`: float [clusters], of the weighted x in each and of their weights.

        All patterns where at most 16 sums are not 0, each equally often, so that p is exact for a mean of 0; else drawn, with
        the observed pattern among the draws, so that p is never 0 (Phipson and Smyth, 2010, arXiv 1603.05766).
        """
        size, differing = len(sums), np.flatnonzero(sums)
        exact = len(differing) <= _EXACT_DIFFERENCES
        patterns = 2 ** len(differing) if exact else draws + 1
        # Zeros have a sign, too, where the hypothetical mean is not 0.
        total = patterns * (1 if not exact or len(differing) == size else math.ceil(draws / patterns))
        lows, highs = np.empty(total), np.empty(total)
        both = np.stack([sums, weights], axis=1)
        for start in range(0, total, _BLOCK):
            number = np.arange(start, min(start + _BLOCK, total))
            flipped = rng.integers(2, size=(len(number), size), dtype=np.int8)
            if exact:
                flipped[:, differing] = number[:, None] % patterns >> np.arange(len(differing)) & 1
            flipped[number == 0] = 0
            lows[number], highs[number] = _ranges(flipped @ both, both.sum(axis=0))
        return cls(float(sums.sum() / weights.sum()), np.sort(lows), np.sort(highs))

    def p(self, mean: float = 0.0) -> float:
        """Two-sided p-value of a hypothetical mean. Every range holds the observed one, so one end of it decides."""
        inside = self.lows <= mean if mean <= self.mean else self.highs >= mean
        return float(np.mean(inside))

    def interval(self, confidence: float = 0.95) -> Interval:
        """The means with p >= 1 - confidence, between -1 and 1."""
        enough = math.ceil((1 - confidence) * len(self.lows) - 1e-9)
        low, high = self.lows[enough - 1], self.highs[-enough]
        return Interval(self.mean, max(-1.0, float(low)), min(1.0, float(high)))


def _ranges(flipped: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the patterns, from float [patterns, 2]: sum and weight of what is flipped; `whole`: those of everything."""
    rest = whole - flipped
    one_sided = (flipped[:, 1] <= 0) | (rest[:, 1] <= _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.sort(np.stack([flipped[:, 0] / flipped[:, 1], rest[:, 0] / rest[:, 1]]), axis=0)
    lows, highs = np.where(one_sided, -np.inf, means[0]), np.where(one_sided, np.inf, means[1])
    return lows - _ROUNDING, highs + _ROUNDING


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold for all comparisons together (S. Holm, 1979, Scand. J. Statist. 6:65-70)."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    scaled = np.minimum(1.0, (m - np.arange(m)) * np.asarray(p_values, dtype=np.float64)[order])
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate(scaled)
    return [float(p) for p in adjusted]


def corrected(comparisons: dict[str, Paired]) -> dict[str, Paired]:
    """The comparisons by benchmark, with Holm's correction over them."""
    adjusted = holm([comparison.p for comparison in comparisons.values()])
    return {name: replace(c, corrected=p) for (name, c), p in zip(comparisons.items(), adjusted, strict=True)}
