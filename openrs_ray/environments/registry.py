"""Environments by name: built in, or a class in a file of the user's own."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.extras import require
from openrs_ray.config.environment import SINGLE_TURN
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.task import Task
from openrs_ray.environments.between import Between
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.inspection import Tools, tools_of
from openrs_ray.environments.making import BUILT_IN, Making
from openrs_ray.environments.replier import Replier
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.environments.turns import Ask, Bounds, TurnByTurn
from openrs_ray.errors import UserError
from openrs_ray.models.tool_template import OWN_FORMAT, CallFormat, template_format
from openrs_ray.rewards.libraries.names import VERIFIERS
from openrs_ray.user_code.reference import UserCode, is_reference


def code_of(config: RunConfig, task: Task) -> UserCode | None:
    """The file of the user's own that the task's environment names."""
    name = task.environment.name
    return config.user_code(name) if is_reference(name) else None


def check_environment(task: Task, code: UserCode | None) -> Tools:
    """The tools that the task's environment offers. UserError for one that does not exist or cannot be used."""
    name = task.environment.name
    if name == SINGLE_TURN:
        return ()
    if name.startswith(VERIFIERS):
        require("verifiers", "verifiers", f"environment {name}")
        return ()  # its problems are read by the library itself, which says what it cannot do
    if code is None and name not in BUILT_IN:
        known = ", ".join((SINGLE_TURN, *BUILT_IN))
        raise UserError(
            f"there is no environment {name!r}; known are {known}, and a class of your own as my_env.py:Calculator"
        )
    return tools_of(_replier(task, code, OWN_FORMAT), task.environment)


def repliers(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Replier]:
    """Answering parts of the environments that have one, by task."""
    form = template_format(tokenizer) or OWN_FORMAT
    return {task.name: _replier(task, code_of(config, task), form) for task in config.tasks if task.environment.answers}


def environments(
    tasks: Sequence[Task], tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int], ask: Ask | None
) -> Mapping[str, Environment]:
    """Environments by task; `ask` may be None where none answers."""
    between = Between(tokenizer, frozenset(end_ids))
    found: dict[str, Environment] = {}
    for task in tasks:
        section = task.environment
        if not section.answers:
            found[task.name] = SingleTurn()
            continue
        assert ask is not None, f"nothing answers the turns of environment {section.name}"
        bounds = Bounds(section.max_turns, section.max_turn_tokens)
        found[task.name] = TurnByTurn(between, ask, bounds)
    return found


def _replier(task: Task, code: UserCode | None, form: CallFormat) -> Replier:
    return Replier(Making(task, code), form, task.environment.name)
