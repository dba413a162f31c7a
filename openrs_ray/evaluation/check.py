"""Correctness in an evaluation: by the rules of training, or `published` as in the authors' harness (the box first)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from openrs_ray.config.answer import Answer
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.answers.extraction import last_boxed
from openrs_ray.rewards.answers.kinds import checker, own_deadline_s
from openrs_ray.rewards.answers.numerics import digits, is_number
from openrs_ray.rewards.answers.reading import read
from openrs_ray.rewards.judge import Judge
from openrs_ray.rewards.records import Extraction, JudgeItem

Rules = Literal["boxed", "any", "published"]

_PUBLISHED_EXTRACTION = (ExprExtractionConfig(), LatexExtractionConfig(boxed_match_priority=0))
_PUBLISHED_DIGITS = 5
_MAX_FLOAT_DIGITS = 300


MATHEMATICS = Answer()
_RULES = Judge({}, "boxed")


@dataclass(frozen=True, slots=True)
class Answered:
    r"""Example: Answered(r"2 + 2 </think> \boxed{4}", ("4",))"""

    text: str
    gold: tuple[str, ...]
    tolerance: float | None = None
    answer: Answer = MATHEMATICS
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)


WARM_UP = (Answered(r"</think> \boxed{\frac{\sqrt{8}}{2}}", (r"\sqrt{2}",)),)


@dataclass(frozen=True)
class Check:
    """Where no gold can be parsed, a different text is WRONG: else only correct answers would count."""

    rules: Rules

    def __call__(self, item: Answered) -> Verdict:
        start = time.perf_counter()
        if item.answer.kind != "math":
            status, answer = _of_kind(item)
        else:
            status, answer = _published(item) if self.rules == "published" else _ours(item, self.rules)
        return Verdict(status, {}, None, answer, seconds=time.perf_counter() - start)

    def own_deadline_s(self, item: Answered) -> float:
        """Time that a check needs beyond `rewards.deadline_s`."""
        return own_deadline_s(item.answer, _as_judged(item))


def _of_kind(item: Answered) -> tuple[Status, str | None]:
    status, answer, *_ = checker(item.answer, _RULES)(_as_judged(item))
    return status, answer


def _as_judged(item: Answered) -> JudgeItem:
    return JudgeItem(item.text, 0, "stop", item.gold, row=item.row)


def _ours(item: Answered, extraction: Extraction) -> tuple[Status, str | None]:
    status, answer = check_answer(item.text, item.gold, extraction)
    if status is Status.UNPARSEABLE_GOLD:
        status = Status.WRONG if answer else Status.NO_ANSWER
    if status is Status.WRONG and item.tolerance is not None and answer is not None:
        value, golds = _value(answer), [_value(gold) for gold in item.gold]
        # A little more, since 4.3 - 4.2 is not 0.1 in floating point.
        if value is not None and any(g is not None and abs(value - g) <= item.tolerance * (1 + 1e-9) for g in golds):
            status = Status.CORRECT
    return status, answer


def _published(item: Answered) -> tuple[Status, str | None]:
    # The parser would join boxes less than 70 characters apart into one answer; the authors' harness reads the last alone.
    boxed = last_boxed(item.text)
    text = item.text if boxed is None else rf"\boxed{{{boxed}}}"
    found = parse(text, _PUBLISHED_EXTRACTION, parsing_timeout=None)
    if not found:
        return Status.NO_ANSWER, None
    golds = [parse(gold if "$" in gold else f"${gold}$", parsing_timeout=None) for gold in item.gold]
    correct = any(verify(gold, found, float_rounding=_PUBLISHED_DIGITS, timeout_seconds=None) for gold in golds)
    return Status.CORRECT if correct else Status.WRONG, str(found[-1])


def _value(answer: str) -> float | None:
    found = read(answer).value
    try:
        return float(found) if is_number(found) and digits(found) < _MAX_FLOAT_DIGITS else None  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
