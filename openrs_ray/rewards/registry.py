"""Rewards by name, found as the files of `single` and `group`: nothing else lists them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_type_hints

from openrs_ray.errors import UserError
from openrs_ray.rewards.judge_model.settings import NAMES as BY_A_JUDGE
from openrs_ray.user_code.reference import is_reference


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward's function and the dataclass of its parameters, if any."""

    function: Callable[..., Any]
    parameters: type | None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Reward:
        """The parameters are the type of the function's argument `parameters`."""
        return cls(function, get_type_hints(function).get("parameters"))

    def __call__(self, *seen: Any, parameters: Any = None) -> Any:
        """The function's value, with default parameters where none are given."""
        own = () if self.parameters is None else (parameters or self.parameters(),)
        return self.function(*seen, *own)


def rewards_in(package: str) -> dict[str, Reward]:
    """The function `reward` of every file in a package."""
    names = sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))
    return {name: Reward.of(import_module(f"{package}.{name}").reward) for name in names}


SINGLE = rewards_in("openrs_ray.rewards.single")
"""Judge one completion: (RewardInput[, parameters]) -> float."""

GROUP = rewards_in("openrs_ray.rewards.group")
"""Judge all completions of a problem: (lengths in tokens, correct or not[, parameters]) -> list[float]."""


def weighted_parameters(rewards: Any) -> dict[str, Any]:
    """Parameters by name, from a config's section `rewards`."""
    kinds = {name: reward.parameters for name, reward in (SINGLE | GROUP).items() if name in rewards.weights}
    return {name: kind(**getattr(rewards, name).model_dump()) for name, kind in kinds.items() if kind}


def check_reward_names(weights: Mapping[str, float]) -> None:
    """UserError for a reward that does not exist; own ones (FILE.py:FUNCTION) are `openrs_ray.rewards.own`'s to look at."""
    known = [*SINGLE, *GROUP, *BY_A_JUDGE]
    unknown = sorted(name for name in weights if name not in known and not is_reference(name))
    if unknown:
        raise UserError(
            f"rewards.weights names unknown rewards ({', '.join(unknown)}); one of your own is FILE.py:FUNCTION; known are "
            f"{', '.join(known)}"
        )
