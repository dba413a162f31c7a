"""The section `answer`: what counts as the answer of a completion, and as a right one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from openrs_ray.config.section import Amount, Count, Positive, Seconds, Section, Share, SomeAmount
from openrs_ray.rewards.answers.exact import Ignored

AnswerKind = Literal["math", "choice", "number", "exact", "set", "code", "none"]
Text = Annotated[str, Field(min_length=1)]

_FIELDS_OF: dict[str, tuple[AnswerKind, ...]] = {
    "after": ("math", "choice", "number", "exact", "set"),
    "choices": ("choice",),
    "gold_index": ("choice",),
    "gold_list": ("choice", "set"),
    "tolerance": ("number",),
    "absolute_tolerance": ("number",),
    "tolerance_column": ("number",),
    "unit": ("number",),
    "unit_column": ("number",),
    "unit_required": ("number",),
    "ignore": ("exact", "set"),
    "ordered": ("set",),
    "repeats": ("set",),
    "cpu_s": ("code",),
    "memory_gib": ("code",),
    "shown_tests": ("code",),
    "most_tests": ("code",),
}


class Answer(Section):
    kind: AnswerKind = "math"
    """Mathematics, the letter of a multiple choice, a number with or without unit, a string, a list, a program, or nothing to
    check (rewards of your own decide)."""
    after: Text | None = None
    """The answer is what follows the last occurrence of this marker, to the end of its line, instead of the last \\boxed{}."""
    choices: Text | None = None
    """Choice: column of the options' texts (a list, or texts by letter), each of which then counts as its letter."""
    gold_index: bool = False
    """Choice: the gold is the option's place, counted from 0 (MMLU)."""
    gold_list: Literal["any", "all"] | None = None
    """A list in the answer column: any one of its answers is right, or all of them are one (default: all for sets only)."""
    tolerance: Share = 0.0
    """Number: largest relative error, as a share of the gold (0.05: five per cent)."""
    absolute_tolerance: Amount = 0.0
    """Number: largest absolute error, in the gold's unit; an answer within either tolerance is right."""
    tolerance_column: Text | None = None
    """Number: column of the absolute tolerance of each row, where it has one (OlympiadBench: error)."""
    unit: Text | None = None
    """Number: unit of the golds that have none."""
    unit_column: Text | None = None
    """Number: column of each gold's unit (SciBench: unit)."""
    unit_required: bool = False
    """Number: an answer without unit is wrong where the gold has one."""
    ignore: tuple[Ignored, ...] = ()
    """Exact and set: differences that do not count (case, whitespace, punctuation, unicode, articles)."""
    ordered: bool = False
    """Set: the elements must stand in the gold's order."""
    repeats: bool = False
    """Set: each element must stand as often as in the gold."""
    cpu_s: Seconds = 5.0
    """Code: computing time of a program, in whole seconds: for all assert statements together, or for each input; by the clock
    six times as much."""
    memory_gib: SomeAmount = 1.0
    """Code: memory of a program, at most rewards.memory_gib."""
    shown_tests: Count = 1
    """Code: of the assert statements the first so many stand behind the problem, because they name the function."""
    most_tests: Positive = 20
    """Code: of a problem's tests only the first so many are run."""

    @model_validator(mode="after")
    def _of_this_kind(self) -> Answer:
        for name, kinds in _FIELDS_OF.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"answer.{name} is for answer.kind {' and '.join(kinds)}, not {self.kind}")
        if self.unit is not None and self.unit_column is not None:
            raise ValueError("answer.unit and answer.unit_column exclude each other: leave out one")
        return self

    @property
    def gold_is_list(self) -> bool:
        """True where all golds of a row are one answer."""
        return self.gold_list == "all" or (self.gold_list is None and self.kind == "set")
