"""Format reward: reasoning, one `</think>`, an answer."""

from openrs_ray.rewards.extraction import THINK_CLOSE, THINK_OPEN
from openrs_ray.rewards.records import FormatForm, RewardInput


def format_reward(item: RewardInput, *, form: FormatForm = "tags") -> float:
    """1.0 for a well-formed completion, else 0.0 (Open-RS, arXiv 2503.16219, section 2, "Format Reward").

    tags, as described: The completion is reasoning, exactly one `</think>` and a non-empty answer. The opening `<think>` may
    be missing (many chat templates end the prompt with it), but where it stands it stands once, at the start.

    line, as published: There is exactly one `</think>` on a line of its own, with a line break before and after.
    """
    if form == "line":
        return float(item.text.count(f"\n{THINK_CLOSE}\n") == 1)
    reasoning, close, answer = item.text.partition(THINK_CLOSE)
    reasoning = reasoning.strip().removeprefix(THINK_OPEN)
    well_formed = close and reasoning.strip() and answer.strip()
    stray_tag = THINK_OPEN in reasoning or THINK_OPEN in answer or THINK_CLOSE in answer
    return float(bool(well_formed) and not stray_tag)
