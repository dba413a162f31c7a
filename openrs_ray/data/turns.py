"""Problem formats: text, or a list of chat messages that ends with a user turn."""

import re
from typing import Any

from openrs_ray.data.columns import CellError, json_value, kind

Message = dict[str, str]
"""Keys role and content."""
Asked = str | tuple[Message, ...]

_ROLES = ("system", "user", "assistant")
_JSON_MESSAGES = re.compile(r"\s*\[\s*\{")


def read_problem(cell: Any) -> Asked:
    """CellError for anything else than text or messages (a list or JSON text)."""
    if isinstance(cell, str):
        messages = json_value(cell) if _JSON_MESSAGES.match(cell) else None
        if not (isinstance(messages, list) and all(isinstance(m, dict) and "role" in m for m in messages)):
            return cell
        cell = messages
    if not isinstance(cell, list):
        raise CellError(f"a problem is text or a list of chat messages, not {kind(cell)}")
    messages = tuple(_message(value, number) for number, value in enumerate(cell, start=1))
    if not messages or messages[-1]["role"] != "user":
        raise CellError("a problem's messages must end with a user turn")
    return messages


def plain_problem(cell: Any) -> str:
    """The text of a single user turn. CellError for a longer conversation."""
    asked = read_problem(cell)
    if isinstance(asked, str):
        return asked
    if len(asked) > 1:
        raise CellError(f"only one user turn can be used here, not a conversation of {len(asked)} messages")
    return asked[0]["content"]


def has_system_message(asked: Asked) -> bool:
    return not isinstance(asked, str) and any(message["role"] == "system" for message in asked)


def text_of(asked: Asked) -> str:
    """Text that identifies a problem, without system messages."""
    if isinstance(asked, str):
        return asked
    return "\n\n".join(message["content"] for message in asked if message["role"] != "system")


def continued(asked: Asked, text: str) -> Asked:
    """The problem with a text behind its last turn."""
    if isinstance(asked, str):
        return asked + text
    return (*asked[:-1], {**asked[-1], "content": asked[-1]["content"] + text})


def _message(value: Any, number: int) -> Message:
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys():
        raise CellError(f"a chat message has role and content, but message {number} is {kind(value)}")
    if value["role"] not in _ROLES:
        raise CellError(f"message {number} has the role {value['role']!r}, which is none of {', '.join(_ROLES)}")
    if not isinstance(value["content"], str):
        raise CellError(f"the content of message {number} must be text, not {kind(value['content'])}")
    return {"role": value["role"], "content": value["content"]}
