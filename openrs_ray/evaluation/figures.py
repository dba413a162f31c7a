"""Figures of one model on one benchmark; every problem weighs the same.

`correct` is float [problems, samples]: 1 correct, 0 wrong, NaN not judged, which never counts as 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from openrs_ray.stats import Interval, average_interval, effective_interval, mean_interval, sampling_interval


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """Unbiased chance [problems] that at least one of k samples is correct; NaN where fewer than k were judged.

    1 - C(n - c, k) / C(n, k) with c correct of n (Chen et al., arXiv 2107.03374, eq. 1).
    """
    n = np.sum(~np.isnan(correct), axis=1, keepdims=True)
    c = np.nansum(correct, axis=1, keepdims=True)
    step = np.arange(k)
    # C(n - c, k) / C(n, k) = product of (n - c - i) / (n - i); it is 0 once a factor is.
    all_wrong = np.prod(np.maximum(n - c - step, 0) / np.maximum(n - step, 1), axis=1)
    return np.where(n[:, 0] >= k, 1 - all_wrong, np.nan)


def majority(classes: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """float64 [problems]: 1 where the most frequent answer is correct; of a tie, the share that is (arXiv 2203.11171).

    NaN where no sample was judged; a sample that was not has no vote.
    """
    same = (classes[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, :, None]
    votes = same.sum(axis=2)
    winning = (votes == votes.max(axis=1, keepdims=True)) & (classes >= 0)
    shares: np.ndarray = (winning * np.nan_to_num(correct)).sum(axis=1) / np.maximum(winning.sum(axis=1), 1)
    return np.where(np.isnan(correct).all(axis=1), np.nan, shares)


def one_run_deviation(correct: np.ndarray) -> float | None:
    """Standard deviation of a run's score with one sample per problem; None where a problem has only one judged sample."""
    if (np.sum(~np.isnan(correct), axis=1) < 2).any():
        return None
    return float(np.sqrt(np.nanvar(correct, axis=1, ddof=1).sum()) / len(correct))


def pass_interval(correct: np.ndarray, k: int, clusters: np.ndarray | None = None) -> Interval | None:
    """pass@k over the problems with k judged samples, bounded for the unjudged ones."""
    judged = pass_at_k(correct, k)
    if np.isnan(judged).all():
        return None
    low, high = (
        effective_interval(pass_at_k(np.nan_to_num(correct, nan=filled), k), correct.shape[1], clusters)
        for filled in (0.0, 1.0)
    )
    return Interval(float(np.nanmean(judged)), low.low, high.high)


def majority_interval(classes: np.ndarray, correct: np.ndarray, clusters: np.ndarray | None = None) -> Interval | None:
    """maj@k over the problems with a judged sample, bounded for the unjudged ones, whose votes may all be for one answer."""
    judged = majority(classes, correct)
    if np.isnan(judged).all():
        return None
    low, high = (
        effective_interval(majority(*_all_votes(classes, correct, right)), correct.shape[1], clusters)
        for right in (False, True)
    )
    return Interval(float(np.nanmean(judged)), low.low, high.high)


def _all_votes(classes: np.ndarray, correct: np.ndarray, right: bool) -> tuple[np.ndarray, np.ndarray]:
    """Classes and verdicts with the unjudged votes for the correct answer, or for the most frequent wrong one."""
    classes, unjudged = classes.copy(), np.isnan(correct)
    for problem in np.flatnonzero(unjudged.any(axis=1)):
        given = classes[problem][(correct[problem] == right) & (classes[problem] >= 0)]
        answer = np.bincount(given).argmax() if len(given) else classes[problem].max() + 1
        classes[problem, unjudged[problem]] = answer
    return classes, np.nan_to_num(correct, nan=float(right))


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Arrays [problems, samples]."""

    correct: np.ndarray
    """float: 1, 0, or NaN where not judged or not taken."""
    classes: np.ndarray
    """int: equal for equal answers, -1 without one."""
    tokens: np.ndarray
    truncated: np.ndarray
    english: np.ndarray
    """Share of the letters."""
    clusters: np.ndarray | None = None
    """[problems], equal for problems that belong together."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One cell of the table. Accuracies are None (or empty) where too much was unjudged."""

    problems: int
    samples: int
    average: Interval | None
    """avg@k, with the interval over problems."""
    bounds: tuple[float, float] | None
    """avg@k with everything unjudged wrong, and right; None where all is judged."""
    sampling: Interval | None
    """The same mean, with the interval over samples."""
    one_run: float | None
    """Standard deviation of one sample per problem."""
    pass_at: dict[int, Interval]
    """For k = 1, 2, 4, ..."""
    majority: Interval | None
    """None with one sample."""
    mean_tokens: float
    truncated_share: float
    english_share: float
    unjudged: int

    def as_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["pass_at"] = {str(k): asdict(interval) for k, interval in self.pass_at.items()}
        return content


def figures(samples: Samples, max_unjudged_share: float = 0.1) -> Figures:
    correct, clusters = samples.correct, samples.clusters
    problems, count = correct.shape
    unjudged = np.isnan(correct)
    believed = not unjudged.all() and unjudged.mean() <= max_unjudged_share
    powers = sorted({*(2**i for i in range(count.bit_length())), count}) if believed else []
    passed = {k: pass_interval(correct, k, clusters) for k in powers}
    return Figures(
        problems=problems,
        samples=count,
        average=mean_interval(correct, clusters) if believed else None,
        bounds=(float(np.nansum(correct) / correct.size), float(np.nan_to_num(correct, nan=1.0).mean()))
        if unjudged.any()
        else None,
        sampling=sampling_interval(correct) if believed else None,
        one_run=one_run_deviation(correct) if believed else None,
        pass_at={k: interval for k, interval in passed.items() if interval is not None},
        majority=majority_interval(samples.classes, correct, clusters) if believed and count > 1 else None,
        mean_tokens=float(samples.tokens.mean()),
        truncated_share=float(samples.truncated.mean()),
        english_share=float(samples.english.mean()),
        unjudged=int(unjudged.sum()),
    )


def average_of(several: Sequence[Figures]) -> Interval | None:
    """Plain average of avg@k over benchmarks; None where one is refused."""
    parts = [figures.average for figures in several]
    return average_interval([part for part in parts if part is not None]) if all(parts) else None
