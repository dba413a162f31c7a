"""Accuracy reward: the answer is right."""

from openrs_ray.records import Status
from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """1.0 for a correct answer, else 0.0 (Open-RS, arXiv 2503.16219, section 2, "Accuracy Reward").

    1.0 also for a gold that cannot be parsed, where `rewards.unparseable_gold` pays for those.
    """
    return float(item.status in (Status.CORRECT, Status.UNPARSEABLE_GOLD))
