"""The rewards by name. A new reward is one file with one pure function, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from openrs_ray.errors import UserError
from openrs_ray.rewards.accuracy import accuracy_reward
from openrs_ray.rewards.format import format_reward
from openrs_ray.rewards.records import RewardInput

if TYPE_CHECKING:  # the checking processes start without pydantic
    from openrs_ray import config

Reward = Callable[[RewardInput], float]

REWARDS: dict[str, Reward] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
}


def check_reward_names(rewards: config.Rewards) -> None:
    """Raise UserError when `rewards.weights` names a reward that does not exist."""
    unknown = sorted(set(rewards.weights) - set(REWARDS))
    if unknown:
        raise UserError(f"rewards.weights names unknown rewards ({', '.join(unknown)}); known are {', '.join(REWARDS)}")
