"""Checks answers by `answer.kind`: mathematics, choices, numbers, strings and lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from openrs_ray.common.foreign import parse_json
from openrs_ray.errors import UserError
from openrs_ray.records import Status
from openrs_ray.rewards.answers import choice, code, quantity, sets
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.answers.exact import normalised
from openrs_ray.rewards.answers.place import final_part, stated
from openrs_ray.rewards.answers.published import check_published
from openrs_ray.rewards.libraries.judging import LIBRARIES
from openrs_ray.rewards.records import CheckedProgram, JudgeItem

Answer = Any
"""A config's section `answer`, None for mathematics; the config imports this folder, not the reverse."""
Rewards = Any
"""A config's section `rewards`, or a Judge with its fields."""
Gold = tuple[str, ...]
Row = Mapping[str, Any]
Checked = tuple[Status, str | None]
"""Status of a completion, and its answer."""
Check = Callable[[JudgeItem], Checked | CheckedProgram]

_CORRECTNESS = ("accuracy", "cosine", "length")
"""Rewards that ask whether the answer is right."""
_MATH_ONLY = ("extraction", "comparison", "final_form", "unparseable_gold")
"""Fields of `rewards` that speak of mathematics."""


def checker(answer: Answer, rewards: Rewards) -> Check:
    """The check of `answer.kind`, for a checking process."""
    if answer is None or answer.kind == "math":
        return partial(_math, answer.after if answer else None, rewards)
    if answer.kind == "none":
        return _nothing
    if answer.kind in LIBRARIES:
        return LIBRARIES[answer.kind]
    if answer.kind == "code":
        return code.checker(answer, rewards)
    return partial(_check, answer, rewards.unfinished_reasoning)


def parseable(answer: Answer, rewards: Rewards) -> Callable[[Sequence[Gold]], list[bool]]:
    """Tells which golds completions can be compared with, as far as their rows do not matter (`readable`)."""
    if answer.kind == "math":
        from openrs_ray.rewards.golds import parseable_golds  # with its pool, which a checking process has no use for

        return partial(parseable_golds, extraction=rewards.extraction, processes=rewards.processes)
    free = answer.kind == "none" or answer.kind in LIBRARIES
    return lambda golds: [free or bool(gold) for gold in golds]


def readable(answer: Answer, gold: Gold, row: Row) -> bool:
    """True where a gold can be read together with the other columns of its row."""
    if answer.kind == "code":
        return code.readable(gold, row)
    return answer.kind not in _KINDS or bool(_KINDS[answer.kind].golds(answer, gold, row))


def columns(answer: Answer) -> dict[str, str]:
    """Columns beside the gold's that a kind needs, by their setting."""
    names = {f"answer.{name}": getattr(answer, name) for name in ("choices", "unit_column", "tolerance_column")}
    return {setting: column for setting, column in names.items() if column is not None}


def warm_up(answer: Answer) -> tuple[JudgeItem, ...]:
    """A correct answer of a kind other than mathematics, which loads what its check needs."""
    if answer.kind == "code":
        return (code.WARM_UP,)
    right = {"choice": "1" if answer.gold_index else "B", "number": "5 m", "exact": "x", "set": "1, 2"}.get(answer.kind)
    if right is None:
        return ()
    text = rf"We look at the question and put what follows into a box. </think> \boxed{{{right}}}"
    return (JudgeItem(text, 9, "stop", (right,), row={answer.choices or "": ["one", "other"]}),)


def own_deadline_s(answer: Answer, item: JudgeItem) -> float:
    """Time that a check needs beyond `rewards.deadline_s`."""
    return code.deadline_s(answer, item) if answer is not None and answer.kind == "code" else 0.0


def check_kind(answer: Answer, rewards: Rewards) -> None:
    """UserError for settings of `rewards` that do not go with the kind of answers."""
    if answer.kind == "code" and answer.memory_gib > rewards.memory_gib:
        raise UserError(
            f"answer.memory_gib ({answer.memory_gib:g}) of a program is more than rewards.memory_gib "
            f"({rewards.memory_gib:g}) of the process that runs it: raise that"
        )
    if answer.kind != "code" and "tests_passed" in rewards.weights:
        raise UserError(f"rewards.weights has tests_passed, which is for answer.kind code, not {answer.kind}")
    if answer.kind == "math":
        return
    paid = [name for name in _CORRECTNESS if name in rewards.weights]
    if answer.kind in ("none", "verifiers") and paid:
        raise UserError(
            f"rewards.weights has {paid[0]}, which asks for right answers, but answer.kind {answer.kind} checks none: "
            "leave it out, or say what an answer is"
        )
    changed = [name for name in _MATH_ONLY if getattr(rewards, name) != type(rewards).model_fields[name].default]
    if changed:
        raise UserError(f"rewards.{changed[0]} is for answer.kind math, not {answer.kind}: leave it out")


def gold_text(answer: Answer, gold: Gold, row: Row) -> str:
    """A gold as it is compared."""
    kind = _KINDS.get(answer.kind)
    return ("; " if answer.kind == "code" else " or ").join(
        gold if kind is None else map(kind.shown, kind.golds(answer, gold, row))
    )


def addition(answer: Answer, gold: Gold, row: Row) -> str:
    """Text that belongs behind the problem: a choice's options, one a line with its letter, or a program's first tests."""
    if answer.kind == "code":
        return code.shown_tests(gold, row, answer.shown_tests)
    if not answer.show_choices:
        return ""
    options = _options(answer, row) or choice.NO_OPTIONS
    return "\n" + "".join(f"\n{letter}) {text}" for letter, text in options.texts.items())


def _nothing(item: JudgeItem) -> Checked:
    return Status.UNCHECKED, None


def _math(after: str | None, rewards: Rewards, item: JudgeItem) -> Checked:
    if rewards.extraction == "published":
        for_cosine = "cosine" in rewards.weights
        return check_published(item.text, item.gold, rewards.comparison, for_cosine=for_cosine)
    text = item.text
    if after is not None:
        part = final_part(text, rewards.unfinished_reasoning)
        found = None if part is None else stated(part, after)
        text = "" if found is None else rf"\boxed{{{found}}}"
    how = (rewards.extraction, rewards.comparison, rewards.unfinished_reasoning, rewards.final_form)
    return check_answer(text, item.gold, *how)


def _check(answer: Answer, unfinished_reasoning: Any, item: JudgeItem) -> Checked:
    kind = _KINDS[answer.kind]
    golds = kind.golds(answer, item.gold, item.row)
    if not golds:
        return Status.UNPARSEABLE_GOLD, None
    part = final_part(item.text, unfinished_reasoning)
    found = None if part is None else kind.found(answer, part, item.row, golds)
    if found is None:
        return Status.NO_ANSWER, None
    correct = any(kind.same(answer, gold, found, item.row) for gold in golds)
    return Status.CORRECT if correct else Status.WRONG, kind.shown(found)


class _Kind(Protocol):
    """Reads and compares the answers of one kind."""

    def golds(self, answer: Answer, gold: Gold, row: Row) -> Sequence[Any]:
        """Accepted answers, as read; empty where none can be."""

    def found(self, answer: Answer, part: str, row: Row, golds: Sequence[Any]) -> Any | None:
        """Answer in a completion's final part; None without one."""

    def same(self, answer: Answer, gold: Any, found: Any, row: Row) -> bool: ...

    def shown(self, found: Any) -> str:
        """Answer as text; in a box it is read as the same one."""


class _Choice:
    """Letters, in order of the alphabet."""

    def golds(self, answer: Answer, gold: Gold, row: Row) -> list[tuple[str, ...]]:
        options = _options(answer, row)
        read = [choice.gold_letters(one, options, answer.gold_index) for one in gold] if options is not None else []
        if answer.gold_is_list:
            read = [tuple(letter for one in read for letter in one)] if all(read) else []
        return [tuple(sorted({*one})) for one in read if one]

    def found(self, answer: Answer, part: str, row: Row, golds: Sequence[Any]) -> tuple[str, ...] | None:
        options, several = _options(answer, row) or choice.NO_OPTIONS, any(len(gold) > 1 for gold in golds)
        if answer.after is None:
            letters = choice.claimed(part, options, several)
        else:
            letters = choice.read_letters(stated(part, answer.after) or "", options, several) or ()
        return tuple(sorted({*letters})) or None

    def same(self, answer: Answer, gold: tuple[str, ...], found: tuple[str, ...], row: Row) -> bool:
        return gold == found

    def shown(self, found: tuple[str, ...]) -> str:
        return ", ".join(found)


def _options(answer: Answer, row: Row) -> choice.Options | None:
    """None where the row's options cannot be read."""
    if answer.choices is None:
        return choice.NO_OPTIONS
    try:
        return choice.Options.of(_cell(row, answer.choices))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Number:
    text: str
    quantity: quantity.Quantity | None
    """None for an answer that is no number, which is wrong."""


class _Quantity:
    def golds(self, answer: Answer, gold: Gold, row: Row) -> list[_Number]:
        unit = answer.unit if answer.unit_column is None else str(row.get(answer.unit_column) or "")
        read = [_Number(one, quantity.read_gold_quantity(one, unit)) for one in gold]
        return [one for one in read if one.quantity is not None]

    def found(self, answer: Answer, part: str, row: Row, golds: Sequence[Any]) -> _Number | None:
        text = stated(part, answer.after)
        return None if text is None else _Number(text, quantity.read_quantity(text))

    def same(self, answer: Answer, gold: _Number, found: _Number, row: Row) -> bool:
        if gold.quantity is None or found.quantity is None:
            return False
        tolerance = quantity.Tolerance(answer.tolerance, max(answer.absolute_tolerance, _row_tolerance(answer, row)))
        return quantity.same_quantity(gold.quantity, found.quantity, tolerance, answer.unit_required)

    def shown(self, found: _Number) -> str:
        return found.text


def _row_tolerance(answer: Answer, row: Row) -> float:
    """0 where the row has none that is a number."""
    try:
        value = float(_cell(row, answer.tolerance_column) or 0) if answer.tolerance_column is not None else 0.0
    except (TypeError, ValueError):
        return 0.0
    return value if 0 < value < math.inf else 0.0


def _cell(row: Row, column: str) -> Any:
    """Value of a column, or in structs and JSON text behind its dots; None where there is none."""
    value = row.get(column)
    head, _, rest = column.partition(".")
    if value is None and rest:
        inside = _from_json(row.get(head))
        value = _cell(inside, rest) if isinstance(inside, Mapping) else None
    return _from_json(value)


def _from_json(value: Any) -> Any:
    """Lists and structs in JSON text, as in CSV files."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


class _Exact:
    def golds(self, answer: Answer, gold: Gold, row: Row) -> list[str]:
        return [normalised(one, answer.ignore) for one in gold]

    def found(self, answer: Answer, part: str, row: Row, golds: Sequence[Any]) -> str | None:
        text = stated(part, answer.after)
        return None if text is None else normalised(text, answer.ignore)

    def same(self, answer: Answer, gold: str, found: str, row: Row) -> bool:
        return gold == found

    def shown(self, found: str) -> str:
        return found


class _Set:
    def golds(self, answer: Answer, gold: Gold, row: Row) -> list[tuple[sets.Element, ...]]:
        if answer.gold_is_list and len(gold) > 1:
            return [sets.elements(gold, answer.ignore)]
        return [sets.read_list(one, answer.ignore) for one in gold]

    def found(self, answer: Answer, part: str, row: Row, golds: Sequence[Any]) -> tuple[sets.Element, ...] | None:
        text = stated(part, answer.after)
        return None if text is None else sets.read_list(text, answer.ignore)

    def same(self, answer: Answer, gold: Sequence[sets.Element], found: Sequence[sets.Element], row: Row) -> bool:
        return sets.same_list(gold, found, answer.ordered, answer.repeats)

    def shown(self, found: Sequence[sets.Element]) -> str:
        return "; ".join(map(str, found)) or "{}"


_KINDS: Mapping[str, _Kind] = {"choice": _Choice(), "number": _Quantity(), "exact": _Exact(), "set": _Set()}
