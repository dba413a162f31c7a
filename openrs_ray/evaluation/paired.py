"""Is one model better than another? A paired test per problem on each benchmark, corrected for the number of benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from openrs_ray.intervals import Interval, bootstrap_interval

_EXACT_PROBLEMS = 16
"""Up to so many problems that differ, all 2^n sign patterns are counted instead of drawn."""
_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class Paired:
    """One model against another on the same problems. Example: Paired(Interval(0.031, 0.004, 0.058), p=0.03, corrected=0.09)"""

    difference: Interval
    """Mean difference of avg@k per problem, with the bootstrap interval over problems."""
    p: float
    """Two-sided p-value of the sign-flip permutation test."""
    corrected: float
    """The same after Holm's correction over all benchmarks that were compared."""


def compare(ours: np.ndarray, theirs: np.ndarray, seed: int, draws: int = 100_000, confidence: float = 0.95) -> Paired:
    """Compare per problem; `corrected` is still equal to `p`.

    Args:
        ours, theirs: float [problems, samples], NaN where not judged; the numbers of samples may differ. Problems without
            a judged sample on either side are left out.

    Raises:
        ValueError: no problem is left.
    """
    judged = ~(np.isnan(ours).all(axis=1) | np.isnan(theirs).all(axis=1))
    if not judged.any():
        raise ValueError("no problem was judged for both models")
    differences = np.nanmean(ours[judged], axis=1) - np.nanmean(theirs[judged], axis=1)
    rng = np.random.default_rng(seed)
    interval = bootstrap_interval(differences, rng, confidence)
    p = sign_flip_p(differences, rng, draws)
    return Paired(interval, p, p)


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator, draws: int = 100_000) -> float:
    """Two-sided p-value for a mean difference of 0: were the models alike, each difference could have either sign.

    Exact where at most 16 problems differ; else drawn, with the observed pattern counted among the draws, so that p is never
    0 (Phipson and Smyth, 2010, arXiv 1603.05766).
    """
    differing = differences[differences != 0]
    n = len(differing)
    if n == 0:
        return 1.0
    least = abs(differing.sum()) - 1e-9  # sums of the same numbers in another order are the same
    if n <= _EXACT_PROBLEMS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(np.abs(signs @ differing) >= least))
    as_large = 0
    for start in range(0, draws, _BLOCK):
        signs = 1 - 2 * rng.integers(2, size=(min(_BLOCK, draws - start), n), dtype=np.int8)
        as_large += int(np.sum(np.abs(signs @ differing) >= least))
    return (as_large + 1) / (draws + 1)


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
