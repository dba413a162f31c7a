"""Finds a completion's answer, normalises it, reads it and compares it with the golds.

A hostile answer may run for ever outside `openrs_ray.rewards.pool`.
"""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import parse

from openrs_ray.records import Status
from openrs_ray.rewards.answers.comparison import same, verified
from openrs_ray.rewards.answers.extraction import after_reasoning, final_boxes, is_unfinished
from openrs_ray.rewards.answers.final_form import is_value
from openrs_ray.rewards.answers.reading import is_answer, read, read_gold
from openrs_ray.rewards.answers.sizes import is_readable
from openrs_ray.rewards.answers.units import without_letter
from openrs_ray.rewards.records import Comparison, Extraction, UnfinishedReasoning

# math-verify warns that its own time limits are off. They need SIGALRM and the main thread; elsewhere every check is wrong.
logging.getLogger("math_verify").setLevel(logging.ERROR)

Parsed = list[Any]
"""math-verify's result: SymPy expressions, then their string."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?(?:/[1-9][0-9]*)?")
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?)[eE]([+-]?[0-9]+)")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_MAX_NUMBER_CHARACTERS = 100
_DELIMITED = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\boxed")
_TRAILING = "\\."
_TEXT_GROUP = re.compile(r"\\(?:text\w*|mbox|math\w+)\s*\{[^{}]*\}")
_WORD = re.compile(r"(?<![\\A-Za-z{_^])(?!and\b|or\b)[^\W\d_]{3,}")


def check_answer(
    text: str,
    gold: tuple[str, ...],
    extraction: Extraction,
    comparison: Comparison = "gold_first",
    unfinished_reasoning: UnfinishedReasoning = "no_answer",
    final_form: bool = False,
) -> tuple[Status, str | None]:
    """Status of a completion, and its answer.

    "boxed" reads the boxes of the last sentence after the reasoning, "any" the whole text. With `final_form` only a value
    meets a plain number.
    """
    if extraction == "boxed" and unfinished_reasoning == "no_answer" and is_unfinished(text):
        status, answer = Status.NO_ANSWER, None
    else:
        check = _check_boxed if extraction == "boxed" else _check_any
        status, answer = check(text, (*gold, *_spelled_out(gold)), comparison)
    if final_form and status is Status.CORRECT and answer and has_plain_number(gold):
        status = _status(is_value(without_letter(answer)))
    if status is not Status.CORRECT and not gold_is_parseable(gold):
        status = Status.UNPARSEABLE_GOLD
    return status, answer


def _spelled_out(gold: tuple[str, ...]) -> list[str]:
    """Golds such as 4.5e33 without e, which the parser may take for the number."""
    found = [_SCIENTIFIC.fullmatch(one.strip()) for one in gold]
    return [rf"{match[1]} \cdot 10^{{{int(match[2])}}}" for match in found if match]


def gold_is_parseable(gold: tuple[str, ...]) -> bool:
    return has_plain_number(gold) or any(is_answer(read_gold(one), one) for one in gold)


def has_plain_number(gold: tuple[str, ...]) -> bool:
    return any(_number(g) is not None for g in gold)


def _check_boxed(text: str, gold: tuple[str, ...], comparison: Comparison) -> tuple[Status, str | None]:
    answer = final_boxes(after_reasoning(text))
    if not answer:
        return Status.NO_ANSWER, None
    return _compare(answer, gold, comparison), answer


def _check_any(text: str, gold: tuple[str, ...], comparison: Comparison) -> tuple[Status, str | None]:
    if _is_bare(text) and is_readable(text):
        # The text is nothing but an answer, as in files of extracted answers; there a comma may be the decimal one.
        gold = (*gold, *(one.replace(",", ".") for one in gold if _DECIMAL_COMMA.fullmatch(one.strip())))
        if _compare(text, gold, comparison) is Status.CORRECT:
            return Status.CORRECT, text.strip()
    parsed = _parse(text)
    if not parsed:
        is_wrong = _is_bare(text) and read(text).value is not None
        return (Status.WRONG, text.strip()) if is_wrong else (Status.NO_ANSWER, None)
    return _status(any(verified(_parse_gold(g), parsed, comparison) for g in gold)), str(parsed[-1])


def _compare(answer: str, gold: tuple[str, ...], comparison: Comparison) -> Status:
    if any(_squeeze(answer) == _squeeze(g) for g in gold):
        return Status.CORRECT
    if not is_readable(answer):
        return Status.WRONG
    gold_numbers = [_number(g) for g in gold]
    if None not in gold_numbers:
        answer = without_letter(answer)
    number = _number(answer)
    if number is not None and number in gold_numbers:
        return Status.CORRECT
    if all(n is not None and n.denominator == 1 for n in [number, *gold_numbers]):
        return Status.WRONG
    reading = read(answer)
    return _status(any(same(read_gold(g), reading, comparison) for g in gold))


def _status(correct: bool) -> Status:
    return Status.CORRECT if correct else Status.WRONG


def _squeeze(answer: str) -> str:
    r"""Answer without dollars, spaces, full stop and \text{}."""
    squeezed = re.sub(r"\s|\\[,!;]|(?<!\\)\$", "", answer).removesuffix(".")
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", squeezed)


def _number(text: str) -> Fraction | None:
    """Value of a plain integer, decimal or fraction."""
    text = _FRACTION.sub(r"\1/\2", text.strip().strip("\\$"))
    if len(text) > _MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _is_bare(text: str) -> bool:
    r"""True for "x", "east" and "\text{two cats}", but not "5 apples"."""
    if _DELIMITED.search(text):
        return False
    text = text.strip()
    return not (" " in text and _WORD.search(_TEXT_GROUP.sub("", text)))


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> Parsed:
    """Reads like math-verify, which finds LaTeX between delimiters only."""
    if not is_readable(gold):
        return []
    return _parse(f"${' '.join(gold.split()).rstrip(_TRAILING)}$" if _is_bare(gold) else gold)


def _parse(text: str) -> Parsed:
    parsed: Parsed = parse(text, parsing_timeout=None)
    return parsed
