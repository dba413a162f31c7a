"""Tests passed reward: the share of its tests that a program passes."""

from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """0.0 without a program; a finer reward than `accuracy`, which asks for all tests (as APPS' test case average)."""
    return item.passed_share
