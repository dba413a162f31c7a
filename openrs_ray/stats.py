"""Confidence intervals for accuracies; the only source of intervals.

All rest on Wilson's interval for a proportion, with the effective number of trials: samples of one problem are alike, and so
are problems that share a passage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

Figure = Literal["accuracy", "mean reward"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Example: Interval(0.50, low=0.40, high=0.60)"""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Example: TaskScore("accuracy", Interval(0.50, low=0.40, high=0.60), problems=100)"""

    figure: Figure
    """Mean reward where no answer is right or wrong (`answer.kind: none`)."""
    interval: Interval
    problems: int

    def __str__(self) -> str:
        if self.figure == "accuracy":
            return str(self.interval)
        return f"{self.interval.mean:.3f} [{self.interval.low:.3f}, {self.interval.high:.3f}]"


def normal_quantile(confidence: float) -> float:
    """Half width of a two-sided interval, in standard errors. Example: 1.96 for 0.95"""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (E. B. Wilson, 1927, JASA 22:209-212). ValueError for no trials."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"no proportion: {successes} of {trials}")
    z = normal_quantile(confidence)
    share = successes / trials
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(scores: np.ndarray, clusters: np.ndarray | None = None, confidence: float = 0.95) -> Interval:
    """Interval for the mean accuracy over problems, for other problems of this kind. ValueError if nothing is judged.

    Args:
        scores: float [problems, samples] in [0, 1]; NaN where a completion was not judged. Each problem weighs the same.
        clusters: [problems], equal for problems that belong together, such as parts of one exercise.

    The mean covers judged completions; the lower bound takes all others as wrong, the upper one as right.
    """
    scores = np.asarray(scores, dtype=np.float64)
    usable = scores[~np.isnan(scores).all(axis=1)]
    if not usable.size:
        raise ValueError("no judged completion to take the mean of")
    wrong, right = np.nan_to_num(scores, nan=0.0), np.nan_to_num(scores, nan=1.0)
    low, high = (effective_interval(s.mean(axis=1), s.shape[1], clusters, confidence) for s in (wrong, right))
    return Interval(float(np.nanmean(usable, axis=1).mean()), low.low, high.high)


def effective_interval(
    means: np.ndarray, samples: float, clusters: np.ndarray | None = None, confidence: float = 0.95
) -> Interval:
    """Wilson's interval for the mean of float [problems] in [0, 1], each from `samples` samples."""
    trials = effective_trials(means, samples, clusters)
    return wilson_interval(float(np.clip(means.mean(), 0, 1)) * trials, trials, confidence)


def effective_trials(means: np.ndarray, samples: float, clusters: np.ndarray | None = None) -> float:
    """Number of independent trials with the same variance as the mean of `means`: p (1 - p) / Var(mean).

    Between the number of problems (all samples of each agree), or of clusters of equal size (L. Kish, 1965, Survey Sampling,
    section 8.2), and of samples (all independent).
    """
    problems = len(means)
    _, group = np.unique(np.arange(problems) if clusters is None else clusters, return_inverse=True)
    alike = float((np.bincount(group) ** 2).sum()) / problems
    # Half a problem (or cluster) that is all right and half a one that is all wrong are added: otherwise means that happen to
    # be alike would pass for certain, and 479 right of 480 would be known far better than 480 of 480.
    centre = (means.sum() + 0.5 * alike) / (problems + alike)
    spread = float((np.bincount(group, means - centre) ** 2).sum())
    spread += 0.5 * alike**2 * (centre**2 + (1 - centre) ** 2)
    trials = problems**2 * centre * (1 - centre) / spread
    return float(np.clip(trials, problems / alike, problems * samples))


def student_interval(means: np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's interval for the mean of any float [problems], at least two of them, for other problems of this kind."""
    count = len(means)
    half = student_quantile(count - 1, confidence) * float(means.std(ddof=1)) / math.sqrt(count)
    mean = float(means.mean())
    return Interval(mean, mean - half, mean + half)


def student_quantile(freedom: int, confidence: float) -> float:
    """Half width of a two-sided interval of Student's, in standard errors.

    Exact for 1 and 2 degrees of freedom, else R. A. Fisher and E. A. Cornish's expansion (1960, Technometrics 2:209).
    """
    p = 0.5 + confidence / 2
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, n = normal_quantile(confidence), freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(n) ** power for power, term in enumerate(terms, start=1))


def sampling_interval(scores: np.ndarray, confidence: float = 0.95) -> Interval | None:
    """Interval for the mean over these very problems, if sampled again; None with one sample of each.

    `scores`: 0 or 1 [problems, samples], NaN where not judged, bounded as in `mean_interval`. Normal, with the problems' own
    variances.
    """
    usable = scores[~np.isnan(scores).all(axis=1)]
    if scores.shape[1] < 2 or not len(usable):
        return None
    judged = np.sum(~np.isnan(usable), axis=1)
    means = np.nanmean(usable, axis=1)
    # A single sample shows no variance: the largest there can be.
    variances = np.where(judged < 2, 0.25, means * (1 - means) * judged / np.maximum(judged - 1, 1))
    z = normal_quantile(confidence)
    variance = float((variances / judged).sum()) / len(usable) ** 2
    # z^2 / 2 is added to the variance of the number of right samples, which may be 0: without it, two samples of each problem
    # are covered half of the time.
    half = z * math.sqrt(variance + z * z / (2 * float(judged.sum()) ** 2))
    low, high = (float(np.nan_to_num(scores, nan=filled).mean()) for filled in (0.0, 1.0))
    return Interval(float(means.mean()), max(0.0, low - half), min(1.0, high + half))


def average_interval(parts: Sequence[Interval]) -> Interval:
    """Interval for the plain average of independent proportions, from theirs.

    Distances to the bounds add as errors do (G. Y. Zou and A. Donner, 2008, Statistics in Medicine 27:1693-1702).
    """
    means, lows, highs = np.array([(part.mean, part.low, part.high) for part in parts]).T
    average, count = float(means.mean()), len(parts)
    low = average - math.sqrt(float(((means - lows) ** 2).sum())) / count
    high = average + math.sqrt(float(((highs - means) ** 2).sum())) / count
    return Interval(average, max(0.0, low), min(1.0, high))
