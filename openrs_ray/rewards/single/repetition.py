"""Repetition reward: a completion that repeats itself loses."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from openrs_ray.rewards.records import Positive, RewardInput


@dataclass(frozen=True)
class Parameters:
    words: Positive = 3
    """Words in a row that count as repeated when they stood in the completion before."""
    penalty: Annotated[float, Ge(-1_000_000), Le(0)] = -1.0
    """Reward of a completion that repeats everything."""


def reward(item: RewardInput, parameters: Parameters) -> float:
    """`penalty` x the share of n-grams that stood before: arXiv 2502.03373, algorithm 1, as one value."""
    words, spoken = parameters.words, item.text.lower().split()
    total = len(spoken) - words + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(spoken[start:] for start in range(words)), strict=False)))
    return parameters.penalty * (1 - distinct / total)
