"""Score of reasoning-gym: how far the answer is right, by the data set's own judgement."""

from openrs_ray.rewards.libraries.judging import judged_by_reasoning_gym
from openrs_ray.rewards.records import RewardInput


def reward(item: RewardInput) -> float:
    """From 0 to 1 (`ProceduralDataset.score_answer`)."""
    return judged_by_reasoning_gym(item).score
