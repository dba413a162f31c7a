"""Lengths of completions: log-normal, and cut at the limit. Lengths are shares of that limit."""

from functools import cache
from math import exp, log
from statistics import NormalDist

_NORMAL = NormalDist()


def mean(median: float, spread: float) -> float:
    """Of lengths whose logarithm has the standard deviation `spread`, as they are after the cut."""
    return _moment(median, spread, 1)


@cache
def mean_square(mean_length: float, spread: float) -> float:
    """Mean of the squared lengths, of the distribution with this mean."""
    if mean_length >= 1.0:
        return 1.0
    low, high = 1e-9, 1e9
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean(middle, spread) < mean_length else (low, middle)
    return _moment(low, spread, 2)


def _moment(median: float, spread: float, power: int) -> float:
    """Mean of min(length, 1) ** power: below the cut that of a log-normal, and 1 at it."""
    cut = -log(median) / spread
    whole = exp(power * log(median) + (power * spread) ** 2 / 2)
    return whole * _NORMAL.cdf(cut - power * spread) + 1 - _NORMAL.cdf(cut)
