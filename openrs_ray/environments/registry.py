"""Environments by name."""

from openrs_ray.config.task import Task
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.errors import UserError
from openrs_ray.rewards.libraries.names import VERIFIERS

_BUILT_IN = {"single_turn": SingleTurn}


def check_environment(task: Task) -> None:
    """UserError for an environment that does not exist."""
    if task.environment.name not in _BUILT_IN and not task.environment.name.startswith(VERIFIERS):
        raise UserError(f"there is no environment {task.environment.name!r}; known are {', '.join(_BUILT_IN)}")


def environment_of(task: Task) -> Environment:
    if task.environment.name.startswith(VERIFIERS):
        return SingleTurn()
    return _BUILT_IN[task.environment.name]()
