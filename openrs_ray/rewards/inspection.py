"""Looks at a user's own object before anything starts, in a process that can be killed: its import may hang or crash."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Status
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.user_code.loading import load, reason
from openrs_ray.user_code.reference import UserCode

DEADLINE_S = 60.0
"""For an import with all that it imports, in CPU time, or by the clock where it waits."""

T = TypeVar("T")


def inspected(code: UserCode, look: Callable[[Any], T], memory_gib: float) -> T:
    """What `look`, called there with the loaded object, has found. UserError in one sentence, its own ones as they are.

    `look` and its result must be picklable, without classes of the user's file.
    """
    try:
        with CheckPool(_Look(look), 1, DEADLINE_S, memory_gib, failed=_failed) as pool:
            found: _Found = pool.submit(code).result()
    except RunError as error:
        raise UserError(f"{code.reference} cannot be looked at: {error}") from error
    if found.fault:
        raise UserError(
            found.fault if found.told else f"{code.path} ({code.reference}) cannot be imported: {found.fault}"
        )
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

    def __call__(self, code: UserCode) -> _Found:
        try:
            return _Found(self.look(load(code)))
        except UserError as error:
            return _Found(fault=str(error), told=True)
        except Exception as error:
            return _Found(fault=f"{code.path} ({code.reference}) cannot be used: {reason(error, code)}", told=True)
