"""Soft overlong punishment: what comes close to the longest allowed completion costs a little, then more."""

from openrs_ray.rewards.records import RewardInput


def soft_overlong_reward(item: RewardInput, *, max_length: int, buffer: int) -> float:
    """0 up to max_length - buffer tokens, then falling linearly to -1 at max_length and beyond.

    DAPO (arXiv 2503.14476, section 3.4, eq. 13), with its L_max and L_cache; it ran 20,480 and 4,096.
    """
    return -min(1.0, max(0, item.token_count - (max_length - buffer)) / buffer)
