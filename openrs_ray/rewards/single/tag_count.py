"""Tag count reward: a quarter for each of the four tags."""

from openrs_ray.rewards.records import RewardInput

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def reward(item: RewardInput) -> float:
    """A quarter for each tag that stands exactly once. After open-r1, which also asks for line breaks around them."""
    return sum(item.text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)
