"""The rewards by name. A new reward is one file with one pure function, and one line here.

Parameters of a reward are the fields of the config section of its name, given by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from openrs_ray.errors import UserError
from openrs_ray.rewards.accuracy import accuracy_reward
from openrs_ray.rewards.cosine import cosine_reward
from openrs_ray.rewards.format import format_reward
from openrs_ray.rewards.language import language_reward
from openrs_ray.rewards.length import length_rewards
from openrs_ray.rewards.overlong import soft_overlong_reward
from openrs_ray.rewards.reasoning_steps import reasoning_steps_reward
from openrs_ray.rewards.repetition import repetition_reward
from openrs_ray.rewards.tag_count import tag_count_reward

if TYPE_CHECKING:  # the checking processes start without pydantic
    from openrs_ray.config import schema as config

REWARDS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "cosine": cosine_reward,
    "repetition": repetition_reward,
    "tag_count": tag_count_reward,
    "reasoning_steps": reasoning_steps_reward,
    "language": language_reward,
    "soft_overlong": soft_overlong_reward,
}
"""Of one completion: (RewardInput, parameters)."""

GROUP_REWARDS: dict[str, Callable[[Sequence[int], Sequence[bool]], list[float]]] = {"length": length_rewards}
"""Of all judged completions of a problem: (lengths in tokens, whether correct)."""


def check_reward_names(rewards: config.Rewards) -> None:
    """Raise UserError when `rewards.weights` names a reward that does not exist."""
    known = (*REWARDS, *GROUP_REWARDS)
    unknown = sorted(set(rewards.weights) - set(known))
    if unknown:
        raise UserError(f"rewards.weights names unknown rewards ({', '.join(unknown)}); known are {', '.join(known)}")
