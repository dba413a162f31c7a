"""Format reward: reasoning, one `</think>`, an answer."""

from openrs_ray.rewards.extraction import THINK_CLOSE, THINK_OPEN
from openrs_ray.rewards.records import RewardInput


def format_reward(item: RewardInput) -> float:
    """1.0 when the completion is reasoning, exactly one `</think>` and a non-empty answer; else 0.0.

    The opening `<think>` may be missing (many chat templates end the prompt with it), but where it stands it stands
    once, at the start.
    """
    reasoning, close, answer = item.text.partition(THINK_CLOSE)
    reasoning = reasoning.strip().removeprefix(THINK_OPEN)
    well_formed = close and reasoning.strip() and answer.strip()
    stray_tag = THINK_OPEN in reasoning or THINK_OPEN in answer or THINK_CLOSE in answer
    return float(bool(well_formed) and not stray_tag)
