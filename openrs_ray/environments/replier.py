"""Answers the model's turns, in processes that can be killed: reads the tool calls, asks the class, checks its answer."""

import inspect
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openrs_ray.common.telling import part
from openrs_ray.environments.reply import ROLES, Answer, Asked, Message, Reply
from openrs_ray.environments.tool_calls import ToolCall, mistakes, tool_calls
from openrs_ray.errors import UserError
from openrs_ray.models.tool_template import CallFormat
from openrs_ray.records import Status
from openrs_ray.user_code.loading import reason

MOST_STATE_BYTES = 16 << 20
MOST_CHARACTERS = 16 << 20
"""Of all messages of one reply: more than fits into any rollout would only fill the memory of those who pass it on."""


@dataclass(frozen=True)
class Replier:
    """One task's environment. The class's object is made in the process that answers, once."""

    make: Any
    """Callable without arguments that gives the object; picklable."""
    form: CallFormat
    name: str
    """In messages: `my_env.py:Calculator`."""

    def __call__(self, asked: Asked) -> Answer:
        try:
            return self._answer(asked)
        except MemoryError:  # the pool takes a fresh process
            raise MemoryError(f"{self.name} took more than environment.memory_gib allows") from None
        except Exception as error:
            return Answer.failure(Status.ERROR, f"{self.name} failed: {self.reason(error)}", 0.0)

    def _answer(self, asked: Asked) -> Answer:
        turn = asked.messages[-1]["content"]
        calls, tools = tool_calls(turn, self.form), self.tools
        if tools and (wrong := mistakes(calls, tools)):  # the model's mistakes are answered here
            return Answer(tuple(_message("tool", f"error: {sentence}") for sentence in wrong), asked.state)
        arguments = self._arguments(asked, [call for call in calls if isinstance(call, ToolCall)])
        with part(self.name):
            said = self._object.reply(**arguments)
        role = "tool" if calls else "user"
        if not isinstance(said, Reply):
            return Answer(_messages(said, role), asked.state)
        state = pickle.dumps(said.state)
        if len(state) > MOST_STATE_BYTES:
            raise ValueError(
                f"the state has {len(state) >> 20} MiB (at most {MOST_STATE_BYTES >> 20} travel with a turn)"
            )
        return Answer(_messages(said.content, role), state)

    def reason(self, error: Exception) -> str:
        """In one line, with the place in the user's own file; own sentences as they are."""
        code = getattr(self.make, "code", None)
        if isinstance(error, UserError) or code is None:
            return str(error) if isinstance(error, UserError | ValueError) else f"{type(error).__name__}: {error}"
        return reason(error, code)

    def prepare(self) -> None:
        """Makes the object, in this process."""
        self._object  # noqa: B018

    @property
    def made(self) -> Any:
        return self._object

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        return tuple(getattr(self._object, "tools", ()))

    @cached_property
    def _object(self) -> Any:
        with part(self.name):
            return self.make()

    @cached_property
    def _named(self) -> frozenset[str] | None:
        """Arguments that `reply` names; None: all."""
        return named_arguments(self._object.reply)

    def _arguments(self, asked: Asked, calls: list[ToolCall]) -> dict[str, Any]:
        given = {
            "messages": [dict(message) for message in asked.messages],
            "problem": asked.problem,
            "gold": asked.gold[0] if asked.gold else "",
            "golds": asked.gold,
            "row": dict(asked.row),
            "tool_calls": calls,
            "token_count": asked.token_count,
            "state": None if asked.state is None else pickle.loads(asked.state),
        }
        return given if self._named is None else {name: given[name] for name in given if name in self._named}

    def __getstate__(self) -> dict[str, Any]:
        return {"make": self.make, "form": self.form, "name": self.name}  # not the object, which may be anything


REPLY_ARGUMENTS = ("messages", "problem", "gold", "golds", "row", "tool_calls", "token_count", "state")


def named_arguments(function: Any) -> frozenset[str] | None:
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    return frozenset(parameters)


def _messages(said: Any, role: str) -> tuple[Message, ...]:
    """Messages of what `reply` returned. TypeError or ValueError, which count as the environment's error."""
    if said is None:
        return ()
    if isinstance(said, str):
        said = [said]
    if not isinstance(said, Sequence) or isinstance(said, bytes):
        raise TypeError(f"reply returned {type(said).__name__}: give a text, a list of messages, a Reply or None")
    messages = tuple(_message(role, one) if isinstance(one, str) else _checked(one) for one in said)
    if (length := sum(len(message["content"]) for message in messages)) > MOST_CHARACTERS:
        raise ValueError(f"reply returned {length:,} characters (at most {MOST_CHARACTERS:,})")
    return messages


def _checked(message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        raise TypeError(f"reply returned the message {message!r:.100}: give {{'role': ..., 'content': a text}}")
    if message.get("role") not in ROLES:
        raise ValueError(f"reply returned a message of role {message.get('role')!r:.100}: one of {', '.join(ROLES)}")
    return _message(message["role"], message["content"])


def _message(role: str, content: str) -> Message:
    # A lone surrogate, which no tokenizer takes, may come out of bytes that a tool has read.
    return {"role": str(role), "content": content.encode("utf-8", "replace").decode("utf-8")}
