"""Accuracy reward: the answer is right."""

from openrs_ray.records import Status
from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """1.0 or 0.0 (arXiv 2503.16219, section 2); 1.0 also for golds that `rewards.unparseable_gold` pays for."""
    return float(item.status in (Status.CORRECT, Status.UNPARSEABLE_GOLD))
