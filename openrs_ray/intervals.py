"""Confidence intervals for accuracies: Wilson's for one sample per problem, a bootstrap over problems for several."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 4000
"""Of every bootstrap."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the bounds it lies between with the stated confidence. Example: Interval(0.50, low=0.40, high=0.60)"""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (E. B. Wilson, 1927, JASA 22:209-212). ValueError for no trials."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"no proportion: {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(scores: np.ndarray, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval for the mean accuracy over problems. ValueError if nothing is judged.

    `scores`: float [problems, samples] in [0, 1]; NaN where a completion was not judged (left out, never a zero). Each
    problem weighs the same. One sample of 0 or 1 per problem: Wilson. Else the percentile bootstrap over problems,
    which keeps the samples of a problem together, since they are not independent (Efron and Tibshirani, 1993, ch. 13).
    """
    judged = np.asarray(scores, dtype=np.float64)
    judged = judged[~np.isnan(judged).all(axis=1)]
    if not judged.size:
        raise ValueError("no judged completion to take the mean of")
    means = np.nanmean(judged, axis=1)
    # All right or all wrong has no spread to resample, and a width of 0 would be a lie: Wilson over problems.
    if np.isin(means, (0.0, 1.0)).all() and (judged.shape[1] == 1 or means.min() == means.max()):
        return wilson_interval(float(means.sum()), len(means), confidence)
    return bootstrap_interval(means, np.random.default_rng(seed), confidence, resamples)


def bootstrap_interval(
    values: np.ndarray, rng: np.random.Generator, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap of the mean of float [n]."""
    size = len(values)
    return percentile_interval(values, (values[rng.integers(size, size=size)] for _ in range(resamples)), confidence)


def percentile_interval(values: np.ndarray, resampled: Iterable[np.ndarray], confidence: float = 0.95) -> Interval:
    """The mean of `values`, between the percentiles of the means of its resamples."""
    means = [sample.mean() for sample in resampled]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))
