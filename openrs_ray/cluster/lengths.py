"""Lengths of completions as shares of their limit: log-normal, cut at 1."""

from functools import cache
from math import exp, log
from statistics import NormalDist

_NORMAL = NormalDist()


def mean(median: float, spread: float) -> float:
    """Mean length after the cut; `spread`: standard deviation of the logarithm before it."""
    return _moment(median, spread, 1)


@cache
def mean_square(mean_length: float, spread: float) -> float:
    """Mean of the squared lengths of the distribution with this mean."""
    if mean_length >= 1.0:
        return 1.0
    low, high = 1e-9, 1e9
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean(middle, spread) < mean_length else (low, middle)
    return _moment(low, spread, 2)


def _moment(median: float, spread: float, power: int) -> float:
    """Mean of min(length, 1) ** power for a log-normal length: its partial moment below the cut, plus the share above it."""
    cut = -log(median) / spread
    whole = exp(power * log(median) + (power * spread) ** 2 / 2)
    return whole * _NORMAL.cdf(cut - power * spread) + 1 - _NORMAL.cdf(cut)
