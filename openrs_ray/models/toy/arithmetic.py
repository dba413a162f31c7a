"""Three-digit addition: problems, answers, and written-out solutions to teach from.

Every problem belongs to exactly one split, by a checksum of its text: problems for teaching, reinforcement and measurement
are disjoint for every seed.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Split = Literal["teach", "train", "heldout"]

_SHARES: tuple[tuple[Split, int], ...] = (("heldout", 10), ("train", 10), ("teach", 80))
"""Percent of all problems in each split."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Example: Sum(347, 708) has text "347+708" and answer 1055."""

    left: int
    right: int

    @property
    def text(self) -> str:
        return f"{self.left}+{self.right}"

    @property
    def answer(self) -> int:
        return self.left + self.right

    @property
    def split(self) -> Split:
        bucket = zlib.crc32(self.text.encode()) % 100
        for split, share in _SHARES:
            if bucket < share:
                return split
            bucket -= share
        raise AssertionError("the shares add up to 100")


def draw(split: Split, generator: random.Random) -> Iterator[Sum]:
    """Endless problems of one split, repeats possible."""
    while True:
        problem = Sum(generator.randint(100, 999), generator.randint(100, 999))
        if problem.split == split:
            yield problem


def distinct(split: Split, count: int, seed: int) -> list[Sum]:
    """`count` different problems of one split; the same for the same seed."""
    found: dict[str, Sum] = {}
    for problem in draw(split, random.Random(seed)):
        found[problem.text] = problem
        if len(found) == count:
            break
    return list(found.values())


def solution(problem: Sum, *, carries: bool = True) -> str:
    r"""The problem worked column by column from the right, each as `digit + digit + carry = result`.

    Without `carries` the carry is forgotten in every column, which is right only where none occurs.
    Example: 356+709 gives "<think>6+9+0=15;5+0+1=6;3+7+0=10</think>\boxed{1065}".
    """
    columns: list[str] = []
    total, carry = 0, 0
    for place in (1, 10, 100):
        upper, lower = problem.left // place % 10, problem.right // place % 10
        result = upper + lower + carry
        columns.append(f"{upper}+{lower}+{carry}={result}")
        total += place * (result if place == 100 else result % 10)
        carry = int(carries and result >= 10)
    return f"<think>{';'.join(columns)}</think>\\boxed{{{total}}}"
