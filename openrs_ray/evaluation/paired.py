"""Paired test of two models, with Holm's correction (docs/evaluation.md).

The interval holds exactly the differences that the test does not refuse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from openrs_ray.stats import Interval

_EXACT_DIFFERENCES = 16  # Up to so many non-zero differences all 2^n sign patterns are counted, not drawn
_DRAWS = 100_000
_BLOCK = 1000
_ROUNDING = 1e-12  # Tolerance for sums of the same numbers in another order


@dataclass(frozen=True, slots=True)
class Paired:
    difference: Interval
    """Mean difference of avg@k per problem."""
    p: float
    """Two-sided, of the sign-flip permutation test."""
    corrected: float
    """After Holm's correction over all compared benchmarks."""
    bounds: tuple[float, float] | None = None
    """The difference with everything unjudged decided against and for the first model; None where all was judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two models on one benchmark: float [problems, samples], NaN where not judged; the numbers of samples may differ."""

    ours: np.ndarray
    theirs: np.ndarray
    clusters: np.ndarray | None = None
    """[problems], equal for problems that belong together."""

    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Difference and cluster of each problem judged on both sides. ValueError if there is none."""
        judged = ~(np.isnan(self.ours).all(axis=1) | np.isnan(self.theirs).all(axis=1))
        if not judged.any():
            raise ValueError("no problem was judged for both models")
        differences = np.nanmean(self.ours[judged], axis=1) - np.nanmean(self.theirs[judged], axis=1)
        clusters = np.arange(len(judged)) if self.clusters is None else self.clusters
        return differences, np.unique(clusters[judged], return_inverse=True)[1]

    def bounds(self) -> tuple[float, float]:
        """Mean difference with everything unjudged decided against our model, and for it."""
        ours, theirs = ([np.nan_to_num(side, nan=x).mean() for x in (0.0, 1.0)] for side in (self.ours, self.theirs))
        return float(ours[0] - theirs[1]), float(ours[1] - theirs[0])

    @property
    def complete(self) -> bool:
        return not (np.isnan(self.ours).any() or np.isnan(self.theirs).any())


def compare(pairs: Sequence[Pair], seed: int = 0, confidence: float = 0.95) -> Paired:
    """Compare on one benchmark, or on the plain average of several with a test stratified by benchmark.

    Problems without a judged sample on either side are left out. ValueError if a benchmark has none left.
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
    """Sign-flip permutation test of a weighted mean, for every hypothetical mean at once.

    A pattern of signs counts for a range of means; p is the share of ranges that hold a mean.
    """

    mean: float
    lows: np.ndarray
    """float [patterns]: where the ranges begin."""
    highs: np.ndarray

    @classmethod
    def draw(cls, sums: np.ndarray, weights: np.ndarray, rng: np.random.Generator, draws: int = _DRAWS) -> "SignFlips":
        """Sums and weights of each cluster. The observed pattern is among the drawn: p is never 0 (arXiv 1603.05766)."""
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
        """Two-sided; every range holds the observed mean, so one end of it decides."""
        inside = self.lows <= mean if mean <= self.mean else self.highs >= mean
        return float(np.mean(inside))

    def interval(self, confidence: float = 0.95) -> Interval:
        """The means with p >= 1 - confidence, between -1 and 1."""
        enough = math.ceil((1 - confidence) * len(self.lows) - 1e-9)
        low, high = self.lows[enough - 1], self.highs[-enough]
        return Interval(self.mean, max(-1.0, float(low)), min(1.0, float(high)))


def _ranges(flipped: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges from float [patterns, 2], the sum and weight of what is flipped; `whole`: those of everything."""
    rest = whole - flipped
    one_sided = (flipped[:, 1] <= 0) | (rest[:, 1] <= _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.sort(np.stack([flipped[:, 0] / flipped[:, 1], rest[:, 0] / rest[:, 1]]), axis=0)
    lows, highs = np.where(one_sided, -np.inf, means[0]), np.where(one_sided, np.inf, means[1])
    return lows - _ROUNDING, highs + _ROUNDING


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for several comparisons (S. Holm, 1979, Scand. J. Statist. 6:65-70)."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    scaled = np.minimum(1.0, (m - np.arange(m)) * np.asarray(p_values, dtype=np.float64)[order])
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate(scaled)
    return [float(p) for p in adjusted]


def corrected(comparisons: dict[str, Paired]) -> dict[str, Paired]:
    adjusted = holm([comparison.p for comparison in comparisons.values()])
    return {name: replace(c, corrected=p) for (name, c), p in zip(comparisons.items(), adjusted, strict=True)}
