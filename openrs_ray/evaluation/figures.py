"""Figures of one model on one benchmark, from what became of each sample. Pure and vectorised.

Everywhere `correct` is float [problems, samples]: 1 correct, 0 not, NaN not judged (a check that timed out or failed; it is
left out, never a zero). Every problem weighs the same.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from openrs_ray.intervals import RESAMPLES, Interval, mean_interval, percentile_interval


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """float64 [problems]: chance that at least one of k samples is correct; NaN where fewer than k were judged.

    Unbiased: 1 - C(n - c, k) / C(n, k) of a problem with c correct among n (Chen et al., arXiv 2107.03374, eq. 1).
    """
    n = np.sum(~np.isnan(correct), axis=1, keepdims=True)
    c = np.nansum(correct, axis=1, keepdims=True)
    step = np.arange(k)
    # C(n - c, k) / C(n, k) = product of (n - c - i) / (n - i); it is 0 once a factor is.
    all_wrong = np.prod(np.maximum(n - c - step, 0) / np.maximum(n - step, 1), axis=1)
    return np.where(n[:, 0] >= k, 1 - all_wrong, np.nan)


def majority(classes: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """float64 [problems]: 1 where the answer given most often is correct; of a tie, the share of its answers that are.

    `classes`: int [problems, samples], equal for equal answers to the same problem, negative for a sample without a vote.
    A problem without votes scores 0 (X. Wang et al., arXiv 2203.11171, with answers compared as the checker does).
    """
    same = (classes[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, :, None]
    votes = same.sum(axis=2)
    winning = (votes == votes.max(axis=1, keepdims=True)) & (classes >= 0)
    return (winning * np.nan_to_num(correct)).sum(axis=1) / np.maximum(winning.sum(axis=1), 1)


def sampling_interval(correct: np.ndarray, seed: int, confidence: float = 0.95) -> Interval | None:
    """Interval of the mean over these very problems, were they sampled again; None with one sample each.

    Percentile bootstrap over the samples within each problem. It draws one fewer than there are, which makes the variance
    of the mean unbiased (Rao and Wu, 1988, JASA 83:231-241); drawing all would halve it at two samples.
    """
    usable = correct[~np.isnan(correct).all(axis=1)]
    if correct.shape[1] < 2 or not len(usable):
        return None
    means, size = np.nanmean(usable, axis=1), usable.shape[1] - 1
    filled = np.where(np.isnan(usable), means[:, None], usable)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(filled))[:, None]
    resampled = (filled[rows, rng.integers(size + 1, size=(len(filled), size))] for _ in range(RESAMPLES))
    return percentile_interval(means, resampled, confidence)


def one_run_deviation(correct: np.ndarray) -> float | None:
    """Standard deviation of the score of a run with one sample per problem; None where it cannot be known from one sample.

    sqrt(sum of the problems' sample variances) / problems: what re-evaluations over several seeds print behind the +-.
    """
    if (np.sum(~np.isnan(correct), axis=1) < 2).any():
        return None
    return float(np.sqrt(np.nanvar(correct, axis=1, ddof=1).sum()) / len(correct))


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What became of every sample of one model on one benchmark; all arrays are [problems, samples].

    A sample that was not taken is NaN in `correct` and -1 in `classes`.
    """

    correct: np.ndarray
    """float: 1, 0, or NaN where the check could not judge."""
    classes: np.ndarray
    """int: equal for equal answers to the same problem, -1 without an answer."""
    tokens: np.ndarray
    """int: length of the completion."""
    truncated: np.ndarray
    """bool: cut at the limit."""
    english: np.ndarray
    """float: share of the letters outside LaTeX that are in English."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One cell of the table."""

    problems: int
    samples: int
    average: Interval
    """avg@k, with the interval over problems: what other problems of this kind would give."""
    sampling: Interval | None
    """The same mean with the interval over samples: what these problems would give, sampled again."""
    one_run: float | None
    """Standard deviation of a run with one sample per problem."""
    pass_at: dict[int, Interval]
    """pass@k for k = 1, 2, 4, ... up to the samples, with intervals over problems."""
    majority: Interval | None
    """maj@k; None with one sample."""
    mean_tokens: float
    truncated_share: float
    english_share: float
    unjudged: int
    """Samples whose check timed out or failed; left out."""

    def as_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["pass_at"] = {str(k): asdict(interval) for k, interval in self.pass_at.items()}
        return content


def figures(samples: Samples, seed: int) -> Figures:
    """All figures of one model on one benchmark. ValueError if nothing was judged."""
    problems, count = samples.correct.shape
    powers = [2**i for i in range(count.bit_length())]
    passed = {k: pass_at_k(samples.correct, k) for k in sorted({*powers, count})}
    return Figures(
        problems=problems,
        samples=count,
        average=mean_interval(samples.correct, seed=seed),
        sampling=sampling_interval(samples.correct, seed),
        one_run=one_run_deviation(samples.correct),
        pass_at={k: mean_interval(v[:, None], seed=seed) for k, v in passed.items() if not np.isnan(v).all()},
        majority=mean_interval(majority(samples.classes, samples.correct)[:, None], seed=seed) if count > 1 else None,
        mean_tokens=float(samples.tokens.mean()),
        truncated_share=float(samples.truncated.mean()),
        english_share=float(samples.english.mean()),
        unjudged=int(np.isnan(samples.correct).sum()),
    )
