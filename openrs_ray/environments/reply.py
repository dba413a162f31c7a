"""The answer of an environment to one turn of the model, as a user's class gives it and as it travels. Light to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrs_ray.records import Rollout, Status

Message = dict[str, str]
"""Role and content."""
ROLES = ("tool", "user", "system")


@dataclass(frozen=True, slots=True)
class Reply:
    """Value that a class of the user's own may return from `reply`.

    Example: Reply("that is too low", state={"guesses": 3})
    """

    content: str | Sequence[Mapping[str, str]] | None
    """Text, whole messages, or None, which ends the rollout."""
    state: Any = None
    """Handed to the next `reply` of the same rollout; anything that can be pickled."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One finished turn, on its way to the process that answers it."""

    task: str
    problem: str
    gold: tuple[str, ...]
    row: Mapping[str, Any]
    messages: tuple[Message, ...]
    """From the problem to the model's turn."""
    token_count: int
    """Tokens that the model has sampled so far."""
    state: bytes | None = None
    """Pickled; unpickled only in a process that can be killed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Example: Answer(({"role": "tool", "content": "42"},))"""

    messages: tuple[Message, ...] = ()
    """None: the rollout is at its end."""
    state: bytes | None = None
    failed: Status | None = None
    """Timeout or error of the environment itself."""
    detail: str = ""

    @classmethod
    def failure(cls, status: Status, detail: str, seconds: float) -> "Answer":
        return cls(failed=status, detail=detail)


class RolloutFailed(Exception):
    """An environment failed in the middle of a rollout, which has no verdict then."""

    def __init__(self, rollout: Rollout, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.rollout = rollout
        self.status = status
        self.detail = detail
