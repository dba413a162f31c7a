"""Data order: the problem at each position, as a pure function. Each epoch uses every problem once."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class Order:
    """Example: with 12 problems per step, Order(seed=42, problems=7000).draw(588, 12) are those of step 50."""

    seed: int
    problems: int
    shuffle: bool = True

    def index(self, position: int) -> int:
        epoch, place = divmod(position, self.problems)
        return int(_permutation(self.seed, epoch, self.problems)[place]) if self.shuffle else place

    def draw(self, start: int, count: int) -> list[int]:
        return [self.index(position) for position in range(start, start + count)]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, problems: int) -> np.ndarray:
    """Derived from seed and epoch: no random state has to be saved."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(problems)
