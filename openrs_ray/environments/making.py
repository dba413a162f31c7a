"""Makes the objects that answer the model's turns. Light to import: it is loaded in the processes that answer."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from openrs_ray.config.task import Task
from openrs_ray.rewards.libraries.names import VERIFIERS
from openrs_ray.user_code.loading import load
from openrs_ray.user_code.reference import UserCode

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
    code: UserCode | None = None
    """None: built in."""

    def __call__(self) -> Any:
        section = self.task.environment
        if self.code is not None:
            return load(self.code)(**section.parameters)
        if section.name.startswith(VERIFIERS):  # its parameters are the problems' (`data.parameters`)
            return resolve_name(_VERIFIERS)(self.task)
        return resolve_name(BUILT_IN[section.name])(self.task, **section.parameters)
