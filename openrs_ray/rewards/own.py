"""Rewards of the user's own: a function in a file, of one completion or of all completions of a problem."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openrs_ray.common.telling import part
from openrs_ray.errors import UserError
from openrs_ray.records import Status
from openrs_ray.rewards.records import GroupItem, JudgeItem
from openrs_ray.user_code.loading import load, reason
from openrs_ray.user_code.reference import UserCode

OF_ONE, OF_ALL = "completion", "completions"
"""Names of the first argument, which say what a function judges."""
_OF_PROBLEM = ("problem", "gold", "golds", "row", "task")
GIVEN = {
    OF_ONE: (*_OF_PROBLEM, "token_count", "finish_reason", "status", "answer"),
    OF_ALL: (*_OF_PROBLEM, "token_counts", "finish_reasons", "statuses", "answers"),
}
"""Arguments that a function gets where it names them."""
_LARGEST = 1_000_000.0

Parameters = Mapping[str, Any]


class NotJudged(Exception):
    """An own reward failed, or did not judge; the reason as a sentence."""


@dataclass(frozen=True)
class OwnReward:
    """An inspected function. Example: OwnReward(code, "completion", ("gold", "token_count"), {"scale": 2.0})"""

    code: UserCode
    judges: str
    """`completion` or `completions`."""
    takes: tuple[str, ...]
    """Arguments of `GIVEN` that it names."""
    parameters: Parameters = field(default_factory=dict)

    def prepare(self) -> None:
        """Import the file, in a checking process."""
        load(self.code)

    def single(self, item: JudgeItem, status: Status, answer: str | None) -> float | None:
        """None where it says so. Raises NotJudged."""
        given = _of_problem(item) | {
            "token_count": item.token_count,
            "finish_reason": item.finish_reason,
            "status": str(status),
            "answer": answer,
        }
        return self._value(self._called(item.text, given))

    def group(self, item: GroupItem) -> list[float | None]:
        """A value for each completion. Raises NotJudged."""
        given = _of_problem(item) | {
            "token_counts": list(item.token_counts),
            "finish_reasons": list(item.finish_reasons),
            "statuses": [str(status) for status in item.statuses],
            "answers": list(item.answers),
        }
        values = self._called(list(item.texts), given)
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise NotJudged(
                f"{self.code.reference} returned {shown(values)}, not a list with a number for each completion"
            )
        found = list(values)
        if len(found) != len(item.texts):
            raise NotJudged(f"{self.code.reference} returned {len(found)} values for {len(item.texts)} completions")
        return [self._value(value) for value in found]

    def _called(self, completions: Any, given: Mapping[str, Any]) -> Any:
        function, arguments = load(self.code), {name: given[name] for name in self.takes}
        try:
            with part(self.code.reference):
                return function(completions, **arguments, **self.parameters)
        except MemoryError:  # the pool's to judge: others may have left no room
            raise
        except (Exception, SystemExit) as error:
            raise NotJudged(f"{self.code.reference} raised {reason(error, self.code)}") from error

    def _value(self, value: Any) -> float | None:
        """A reward of what a function returned: a finite number of at most a million, true or false, or None."""
        if value is None:
            return None
        if isinstance(value, numbers.Real) or type(value).__name__ in ("bool", "bool_"):
            try:
                number = float(value)
            except (OverflowError, TypeError, ValueError):
                number = math.nan
            if abs(number) <= _LARGEST:  # False for NaN
                return number
        raise NotJudged(f"{self.code.reference} returned {shown(value)}, not a number up to a million, or None")


def _of_problem(item: JudgeItem | GroupItem) -> dict[str, Any]:
    first = item.gold[0] if item.gold else ""
    return {"problem": item.problem, "gold": first, "golds": item.gold, "row": dict(item.row), "task": item.task}


def shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # its own __repr__ fails
        text = "something"
    text = text if len(text) <= 60 else f"{text[:60]} ..."
    return f"{text} ({type(value).__name__})"


def parameters_of(names: Sequence[str], parameters: Mapping[str, Parameters]) -> dict[str, Parameters]:
    """Parameters of each own reward. UserError for those of none, or of several at once."""
    meant: dict[str, list[str]] = {
        key: [name for name in names if key in (name, name.rpartition(":")[2])] for key in parameters
    }
    for key, found in meant.items():
        if not found:
            known = f"those are {', '.join(names)}" if names else "there is none"
            raise UserError(f"rewards.parameters.{key} is of no own reward in rewards.weights: {known}")
        if len(found) > 1 or sum(found == other for other in meant.values()) > 1:
            raise UserError(
                f"rewards.parameters.{key} is not clear: name each of {', '.join(names)} by all of its reference, once"
            )
    return {name: next((parameters[key] for key, found in meant.items() if found == [name]), {}) for name in names}
