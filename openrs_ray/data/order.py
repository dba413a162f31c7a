"""Data order: the problem at each position, as a pure function of seed, weights and sizes.

Within a task, each epoch uses every problem once. Over the tasks, each one's number of positions is never a whole position or
more away from its share.
"""

import bisect
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from openrs_ray.config.task import Task

_PERMUTATIONS = 32
"""Kept at once: tasks take turns."""


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


@lru_cache(maxsize=_PERMUTATIONS)
def _permutation(seed: int, epoch: int, problems: int) -> np.ndarray:
    """Derived from seed and epoch: no random state has to be saved."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(problems)


@dataclass(frozen=True, slots=True)
class Part:
    """A task's problems. Example: Part("sums", weight=3.0, problems=7000)"""

    name: str
    weight: float
    problems: int
    shuffle: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Meaning of a position."""

    task: str
    epoch: int
    """Of the task."""
    problem: int
    """Index over all tasks' problems, which follow each other."""


@dataclass(frozen=True)
class Mixture:
    """Example: Mixture(seed=42, parts=(Part("sums", 3.0, 7000), Part("products", 1.0, 500))).place(8)"""

    seed: int
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, seed: int, tasks: Sequence[Task], problems: Mapping[str, int]) -> "Mixture":
        """`problems`: their number by task."""
        parts = (Part(task.name, task.weight, problems[task.name], task.data.shuffle) for task in tasks)
        return cls(seed, tuple(parts))

    def place(self, position: int) -> Place:
        number, use = self._turns.at(position)
        part = self.parts[number]
        return Place(part.name, use // part.problems, self._first[number] + self._orders[number].index(use))

    def index(self, position: int) -> int:
        return self.place(position).problem

    def task_of(self, problem: int) -> str:
        return self.parts[bisect.bisect_right(self._first, problem) - 1].name

    @cached_property
    def _orders(self) -> list[Order]:
        """A task without a name has the run's own order; any other one's depends on its name, not on the other tasks."""
        seeds = [_seed(self.seed, part.name) if part.name else self.seed for part in self.parts]
        return [Order(seed, part.problems, part.shuffle) for seed, part in zip(seeds, self.parts, strict=True)]

    @cached_property
    def _first(self) -> list[int]:
        ends = np.cumsum([part.problems for part in self.parts])
        return [0, *map(int, ends[:-1])]

    @cached_property
    def _turns(self) -> "Turns":
        return Turns([part.weight for part in self.parts])


class Turns:
    """Whose turn each position is: of n positions, a task of share s has more than n s - 1 and fewer than n s + 1.

    Its use j (0, 1, 2, ...) may come from position floor(j / s) on, and before position ceil((j + 1) / s). Of those that may
    come, the one that must come first does; this always keeps all bounds (S. K. Baruah et al., 1996, Algorithmica 15:600-625).
    """

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        whole = [int(weight * scale) for weight in exact]
        common = math.gcd(*whole)
        self._weights = [weight // common for weight in whole]
        self._block = sum(self._weights)
        """After so many positions, the turns begin again."""
        self._known = list[tuple[int, int]]()
        self._used = [0] * len(weights)

    def at(self, position: int) -> tuple[int, int]:
        """Number of the task, and that of its use."""
        blocks, place = divmod(position, self._block)
        while len(self._known) <= place:
            self._next()
        number, use = self._known[place]
        return number, blocks * self._weights[number] + use

    def _next(self) -> None:
        place, block = len(self._known), self._block
        may = [n for n, weight in enumerate(self._weights) if self._used[n] * block // weight <= place]
        number = min(may, key=lambda n: (-((self._used[n] + 1) * -block // self._weights[n]), n))
        self._known.append((number, self._used[number]))
        self._used[number] += 1


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big") >> 2
