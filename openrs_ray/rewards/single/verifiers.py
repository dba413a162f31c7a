"""Reward of a verifiers environment: the weighted sum of its reward functions and judges."""

from openrs_ray.rewards.libraries.judging import judged_by_verifiers
from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """`Trace.reward` after the episode."""
    return judged_by_verifiers(item).score
