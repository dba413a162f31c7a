"""Tag count reward: a quarter for each of the four tags."""

from openrs_ray.rewards.records import RewardInput

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def tag_count_reward(item: RewardInput) -> float:
    """A quarter for each of <think>, </think>, <answer> and </answer> that stands exactly once.

    After open-r1's reward of that name, which also asks for line breaks around them.
    """
    return sum(item.text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)
