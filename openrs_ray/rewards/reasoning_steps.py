"""Reasoning steps reward: the completion says which step it is at."""

import re

from openrs_ray.rewards.records import RewardInput

_STEP = re.compile(r"\bStep \d+:|^ *(?:\d+\.|[-*])(?=\s)|\b(?:First|Second|Next|Finally),", re.MULTILINE)


def reasoning_steps_reward(item: RewardInput, *, enough: int) -> float:
    """Marks of a step over `enough`, at most 1: "Step 2:", a numbered or bulleted line, "First," "Second," "Next," "Finally,".

    After open-r1's reward of that name, which has enough = 3.
    """
    return min(1.0, sum(1 for _ in _STEP.finditer(item.text)) / enough)
