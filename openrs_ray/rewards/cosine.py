"""Cosine reward: correctness, scaled by length along half a cosine."""

import math

from openrs_ray.records import Status
from openrs_ray.rewards.extraction import THINK_OPEN
from openrs_ray.rewards.records import LengthUnit, RewardInput


def cosine_reward(
    item: RewardInput,
    *,
    max_length: int,
    unit: LengthUnit,
    clamp: bool,
    correct_short: float,
    correct_long: float,
    wrong_short: float,
    wrong_long: float,
) -> float:
    """long + (short - long) (1 + cos(pi p)) / 2 with p = length / max_length, by whether the answer is correct.

    The formula is that of arXiv 2502.03373 (section 4.2, eq. 1); Open-RS (arXiv 2503.16219, section 2) describes it in
    words: of correct answers the short ones earn more, of wrong ones the long ones lose less. With `clamp` p is at
    most 1. Without, as published, the reward is periodic in the length. A gold that cannot be parsed earns 1.0.

    Characters are those the model sampled: a `<think>` at the start is taken for the template's.
    """
    if item.status is Status.UNPARSEABLE_GOLD:
        return 1.0
    length = item.token_count if unit == "tokens" else len(item.text.removeprefix(THINK_OPEN))
    progress = length / max_length
    if clamp:
        progress = min(progress, 1.0)
    correct = item.status is Status.CORRECT
    short, long = (correct_short, correct_long) if correct else (wrong_short, wrong_long)
    return long + 0.5 * (short - long) * (1.0 + math.cos(math.pi * progress))
