"""Format reward: reasoning, one `</think>`, an answer."""

from dataclasses import dataclass
from typing import Literal

from openrs_ray.rewards.answers.extraction import THINK_CLOSE, THINK_OPEN
from openrs_ray.rewards.records import RewardInput


@dataclass(frozen=True)
class Parameters:
    form: Literal["tags", "line"] = "tags"
    """tags: reasoning, one </think>, an answer; line: exactly one </think>, on a line of its own, and nothing else is asked."""


def reward(item: RewardInput, parameters: Parameters) -> float:
    """1.0 or 0.0 (arXiv 2503.16219, section 2); the opening `<think>` may belong to the prompt."""
    if parameters.form == "line":
        return float(item.text.count(f"\n{THINK_CLOSE}\n") == 1)
    reasoning, close, answer = item.text.partition(THINK_CLOSE)
    reasoning = reasoning.strip().removeprefix(THINK_OPEN)
    well_formed = close and reasoning.strip() and answer.strip()
    stray_tag = THINK_OPEN in reasoning or THINK_OPEN in answer or THINK_CLOSE in answer
    return float(bool(well_formed) and not stray_tag)
