"""Reasoning steps reward: the completion says which step it is at."""

import re
from dataclasses import dataclass

from openrs_ray.rewards.records import Positive, RewardInput

_STEP = re.compile(r"\bStep \d+:|^ *(?:\d+\.|[-*])(?=\s)|\b(?:First|Second|Next|Finally),", re.MULTILINE)


@dataclass(frozen=True)
class Parameters:
    enough: Positive = 3
    """Marked steps that earn the whole reward."""


def reward(item: RewardInput, parameters: Parameters) -> float:
    """Marks of steps over `enough`, at most 1, as in open-r1."""
    return min(1.0, sum(1 for _ in _STEP.finditer(item.text)) / parameters.enough)
