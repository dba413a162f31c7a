"""The environment `verifiers:NAME`: what an environment of verifiers says between the model's turns."""

from collections.abc import Mapping
from typing import Any

from openrs_ray.config.task import Task
from openrs_ray.environments.reply import Message
from openrs_ray.rewards.libraries.names import VERIFIERS


class Conversation:
    """Plays the episode again up to the model's last turn: any process can answer any turn."""

    def __init__(self, task: Task) -> None:
        from openrs_ray.rewards.libraries import verifiers as library

        self._library = library
        self._env = library.environment(task.data.path.removeprefix(VERIFIERS), task.data.parameters)

    def reply(self, messages: list[Message], *, row: Mapping[str, Any]) -> list[Message] | None:
        said: list[Message] | None = self._library.next_messages(self._env, row, messages[1:], "stop")
        return said
