"""Looks at a user's own object before anything starts, in a process that can be killed: its import may hang or crash."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Status
from openrs_ray.rewards.pool import CheckPool

DEADLINE_S = 60.0
"""For an import with all that it imports, in CPU time, or by the clock where it waits."""

Seen = TypeVar("Seen")
T = TypeVar("T")


def inspected(look: Callable[[Seen], T], seen: Seen, what: str, failure: str, memory_gib: float) -> T:
    """Value of `look(seen)` there. UserError: its own sentences, or "`failure`: ..." where it raises, hangs or crashes.

    All must be picklable, without classes of the user's file. `what` is looked at.
    """
    try:
        with CheckPool(_Look(look), 1, DEADLINE_S, memory_gib, failed=_failed) as pool:
            found: _Found = pool.submit(seen).result()
    except RunError as error:
        raise UserError(f"{what} cannot be looked at: {error}") from error
    if found.fault:
        raise UserError(found.fault if found.told else f"{failure}: {found.fault}")
    value: T = found.value
    return value


@dataclass(frozen=True, slots=True)
class _Found:
    value: Any = None
    fault: str = ""
    told: bool = False
    """True for a whole sentence."""


def _failed(status: Status, detail: str, seconds: float) -> _Found:
    return _Found(fault=detail)


@dataclass(frozen=True, slots=True)
class _Look:
    look: Callable[[Any], Any]

    def __call__(self, seen: Any) -> _Found:
        try:
            return _Found(self.look(seen))
        except UserError as error:
            return _Found(fault=str(error), told=True)
