"""Cosine reward: correctness, scaled by length along half a cosine."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from openrs_ray.records import Status
from openrs_ray.rewards.answers.extraction import THINK_OPEN
from openrs_ray.rewards.records import Positive, RewardInput, Value


@dataclass(frozen=True)
class Parameters:
    max_length: Positive = 3584
    """Length at which the reward reaches its long end."""
    unit: Literal["tokens", "characters"] = "tokens"
    """Unit of lengths."""
    clamp: bool = True
    """Longer completions get what one of max_length gets (false: the cosine goes on, up and down)."""
    correct_short: Value = 1.0
    """For a correct answer of length 0."""
    correct_long: Value = 0.5
    """For a correct answer of max_length."""
    wrong_short: Value = -1.0
    """For a wrong answer of length 0."""
    wrong_long: Value = -0.5
    """For a wrong answer of max_length."""

    def within(self, max_completion_tokens: int) -> "Parameters":
        """Parameters where completions are no longer than this."""
        if self.unit == "characters":
            return self
        return replace(self, max_length=min(self.max_length, max_completion_tokens))


def reward(item: RewardInput, parameters: Parameters) -> float:
    """long + (short - long) (1 + cos(pi p)) / 2 with p = length / max_length (arXiv 2502.03373, section 4.2, eq. 1).

    Open-RS (arXiv 2503.16219), section 2. A gold that cannot be parsed earns 1.0.
    """
    if item.status is Status.UNPARSEABLE_GOLD:
        return 1.0
    # A `<think>` at the start is the template's.
    length = item.token_count if parameters.unit == "tokens" else len(item.text.removeprefix(THINK_OPEN))
    progress = length / parameters.max_length
    if parameters.clamp:
        progress = min(progress, 1.0)
    if item.status is Status.CORRECT:
        short, long = parameters.correct_short, parameters.correct_long
    else:
        short, long = parameters.wrong_short, parameters.wrong_long
    return long + 0.5 * (short - long) * (1.0 + math.cos(math.pi * progress))
