"""Reward of a verifiers environment: the weighted sum of its reward functions and judges."""

from openrs_ray.rewards.libraries.judging import judged_by_verifiers
from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """What `Trace.reward` is after the episode."""
    return judged_by_verifiers(item).score
