"""Tag count reward: a quarter for each of the four tags."""

from openrs_ray.rewards.records import RewardInput

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def reward(item: RewardInput) -> float:
    """After open-r1, which also asks for line breaks around the tags."""
    return sum(item.text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)
