"""Environments by name: built in, or a class in a file of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.extras import require
from openrs_ray.config.environment import SINGLE_TURN
from openrs_ray.config.task import Task
from openrs_ray.environments.between import Between
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.inspection import Tools, inspected
from openrs_ray.environments.replier import Replier
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.environments.tool_calls import call_format
from openrs_ray.environments.turns import Ask, Bounds, TurnByTurn
from openrs_ray.errors import UserError
from openrs_ray.rewards.libraries.names import VERIFIERS

BUILT_IN = {
    "python_tool": "openrs_ray.environments.python_tool:PythonTool",
    "multi_turn_check": "openrs_ray.environments.multi_turn_check:MultiTurnCheck",
}
"""`module:class` of each; the class takes its task and the section's parameters."""
_VERIFIERS = "openrs_ray.environments.verifiers:Conversation"


@dataclass(frozen=True, slots=True)
class Making:
    """Makes the object that answers, in a process that can be killed."""

    task: Task

    def __call__(self) -> Any:
        section = self.task.environment
        if section.name.startswith(VERIFIERS):  # its parameters are the problems' (`data.parameters`)
            return resolve_name(_VERIFIERS)(self.task)
        return resolve_name(BUILT_IN[section.name])(self.task, **section.parameters)


def check_environment(task: Task) -> Tools:
    """The tools that the task's environment offers. UserError for one that does not exist or cannot be used."""
    name = task.environment.name
    if name == SINGLE_TURN:
        return ()
    if name.startswith(VERIFIERS):
        require("verifiers", "verifiers", f"environment {name}")
        return ()  # its problems are read by the library itself, which says what it cannot do
    if name not in BUILT_IN:
        known = ", ".join((SINGLE_TURN, *BUILT_IN))
        raise UserError(
            f"there is no environment {name!r}; known are {known}, and a class of your own as my_env.py:Calculator"
        )
    return inspected(_replier(task, ""), task.environment)


def repliers(tasks: Sequence[Task], tokenizer: PreTrainedTokenizerBase) -> dict[str, Replier]:
    """Answering parts of the environments that have one, by task."""
    template = str(tokenizer.chat_template)
    return {task.name: _replier(task, template) for task in tasks if task.environment.answers}


def environments(
    tasks: Sequence[Task], tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int], tokens: int, ask: Ask | None
) -> Mapping[str, Environment]:
    """Environments by task. `tokens`: the most that may follow a prompt; `ask` may be None where none answers."""
    between = Between(tokenizer, frozenset(end_ids))
    found: dict[str, Environment] = {}
    for task in tasks:
        section = task.environment
        bounds = Bounds(section.max_turns, section.max_turn_tokens, tokens)
        found[task.name] = TurnByTurn(between, ask, bounds) if section.answers and ask else SingleTurn()
    return found


def _replier(task: Task, template: str) -> Replier:
    return Replier(Making(task), call_format(template), task.environment.name)
