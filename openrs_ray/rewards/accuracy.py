"""Accuracy: is the completion's answer one of the gold answers?

Plain numbers and equal strings are compared at once; everything else is math-verify's to decide, gold first (its
comparison is not symmetric: (1, 2) answers a gold of 1 < x < 2, but not the reverse). math-verify's own time limits are
off: they need SIGALRM and the main thread, and where the alarm cannot be set or the error is swallowed, every check comes
out wrong. `openrs_ray.rewards.pool` sets the limit from outside instead, so outside the pool a hostile answer may run for
ever.
"""

import logging
import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from openrs_ray.rewards.extraction import after_reasoning, last_boxed
from openrs_ray.rewards.records import Comparison, Extraction, RewardInput
from openrs_ray.samples import Status

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off, which we mean

MAX_ANSWER_CHARACTERS = 1000
MAX_ANSWER_NESTING = 10
MAX_ANSWER_EXPONENT = 100_000
MAX_ANSWER_FACTORIAL = 100_000
MAX_ANSWER_SUBSCRIPTS = 20
"""An answer longer, or with deeper brackets, a larger exponent or factorial, or more subscripts than this is wrong unread: real
ones stay far below, and the parser takes seconds from there on (degenerate completions would otherwise be timeouts, and
escape the loss)."""

Parsed = list[Any]
"""What math-verify found in a text: SymPy expressions, then the string they were read from."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?(?:/[1-9][0-9]*)?")
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_POWER = re.compile(r"(?:\^|(?<=[0-9.])[eE][+-]?)(?:\\left|[{(\s])*([0-9]+)(?:\s*\^(?:\\left|[{(\s])*([0-9]+))?")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?)[eE]([+-]?[0-9]+)")
_FACTORIAL = re.compile(r"(?:([0-9]+)|([)\]}]))\s*!")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_AROUND_OPERATOR = re.compile(r"\s*([-+*/=<>,])\s*")
_MAX_NUMBER_CHARACTERS = 100
_DELIMITED = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\boxed")
_TRAILING = "\\."
_TEXT_GROUP = re.compile(r"\\(?:text\w*|mbox|math\w+)\s*\{[^{}]*\}")
_WORD = re.compile(r"(?<![\\A-Za-z{_^])(?!and\b|or\b)[^\W\d_]{3,}")


def accuracy_reward(item: RewardInput) -> float:
    """1.0 when the check found the answer correct, else 0.0 (Open-RS, arXiv 2503.16219, section 2, "Accuracy Reward").

    1.0 also for a gold that cannot be parsed, where those are paid for.
    """
    return float(item.status in (Status.CORRECT, Status.UNPARSEABLE_GOLD))


def check_answer(
    text: str, gold: tuple[str, ...], extraction: Extraction, comparison: Comparison = "gold_first"
) -> tuple[Status, str | None]:
    """Whether the answer in `text` equals any gold answer, and the answer that was found.

    "boxed" reads the last box after the reasoning and nothing else; "any" reads the whole text as math-verify does by
    default. `comparison` is the order in which math-verify gets the two. Returns CORRECT, WRONG, NO_ANSWER or
    UNPARSEABLE_GOLD; the caller limits time and memory.
    """
    check = _check_boxed if extraction == "boxed" else _check_any
    status, answer = check(text, (*gold, *_spelled_out(gold)), comparison)
    if status is not Status.CORRECT and not gold_is_parseable(gold):
        status = Status.UNPARSEABLE_GOLD
    return status, answer


def _spelled_out(gold: tuple[str, ...]) -> list[str]:
    """Golds such as 4.5e33 as models write them. A fifth of Minerva's are of that form, which math-verify reads as a product."""
    found = [_SCIENTIFIC.fullmatch(one.strip()) for one in gold]
    return [rf"{match[1]} \cdot 10^{{{int(match[2])}}}" for match in found if match]


def gold_is_parseable(gold: tuple[str, ...]) -> bool:
    """Whether at least one of the gold answers is a mathematical expression that answers can be compared with."""
    return has_plain_number(gold) or any(_is_expression(_parse_gold(g)) for g in gold)


def has_plain_number(gold: tuple[str, ...]) -> bool:
    """Whether one of the gold answers is a plain number, which is known at once."""
    return any(_number(g) is not None for g in gold)


def _check_boxed(text: str, gold: tuple[str, ...], comparison: Comparison) -> tuple[Status, str | None]:
    answer = last_boxed(after_reasoning(text))
    if not answer:
        return Status.NO_ANSWER, None
    return _compare(answer, gold, comparison), answer


def _check_any(text: str, gold: tuple[str, ...], comparison: Comparison) -> tuple[Status, str | None]:
    parsed = _parse(text)
    if _is_bare(text) and is_readable(text):
        # The text is nothing but an answer, as in files of extracted answers: read it as one too.
        as_it_stands = any(_equal(_parse(g), parsed, comparison) for g in gold)
        if as_it_stands or _compare(text, gold, comparison) is Status.CORRECT:
            return Status.CORRECT, text.strip()
        parsed = parsed or _parse_answer(text)
    if not parsed:
        return Status.NO_ANSWER, None
    return _status(any(_equal(_parse_gold(g), parsed, comparison) for g in gold)), str(parsed[-1])


def _compare(answer: str, gold: tuple[str, ...], comparison: Comparison) -> Status:
    """Status of an extracted answer, the cheap comparisons first."""
    if any(_squeeze(answer) == _squeeze(g) for g in gold):
        return Status.CORRECT
    if not is_readable(answer):
        return Status.WRONG
    number, gold_numbers = _number(answer), [_number(g) for g in gold]
    if number is not None and number in gold_numbers:
        return Status.CORRECT
    if all(n is not None and n.denominator == 1 for n in [number, *gold_numbers]):
        return Status.WRONG  # whole numbers only: math-verify takes 0.333333 for 1/3
    parsed = _parse_answer(answer)
    return _status(any(_equal(_parse_gold(g), parsed, comparison) for g in gold))


def _status(correct: bool) -> Status:
    return Status.CORRECT if correct else Status.WRONG


def _squeeze(answer: str) -> str:
    """The answer without dollars, spaces, a closing full stop, or \\text{} around its words."""
    squeezed = re.sub(r"\s|\\[,!;]|(?<!\\)\$", "", answer).removesuffix(".")
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", squeezed)


def _number(text: str) -> Fraction | None:
    """The value of a plain integer, decimal or fraction in ASCII digits; None for anything else."""
    text = _FRACTION.sub(r"\1/\2", text.strip().strip("\\$"))
    if len(text) > _MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.replace(",", "").partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _is_bare(text: str) -> bool:
    """Whether a text is all answer: no LaTeX delimiters and no words around it ("x", "east" and "\\text{two cats}"
    are bare, "5 apples" is not)."""
    if _DELIMITED.search(text):
        return False
    text = text.strip()
    return not (" " in text and _WORD.search(_TEXT_GROUP.sub("", text)))


def is_readable(answer: str) -> bool:
    """Whether an answer is short, flat and small enough to be parsed."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return False
    depth = deepest = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_ANSWER_NESTING or answer.count("_") > MAX_ANSWER_SUBSCRIPTS:
        return False
    return not (_has_huge_power(answer) or _has_huge_factorial(answer))


def _has_huge_power(answer: str) -> bool:
    """Whether an exponent that is a number, or a power of numbers, exceeds the limit."""
    limit = math.log10(MAX_ANSWER_EXPONENT)
    return any(int(power or 1) * math.log10(int(base) or 1) > limit for base, power in _POWER.findall(answer))


def _has_huge_factorial(answer: str) -> bool:
    """Whether a factorial, or a binomial, is of a number beyond the limit, or of a number that may be."""
    of = [found[1] or _inside(answer, found.end(2) - 1) for found in _FACTORIAL.finditer(answer)]
    return any(map(_is_huge_number, [*of, *(part for parts in _BINOMIAL.findall(answer) for part in parts)]))


def _is_huge_number(text: str) -> bool:
    """Whether a text without variables holds a number beyond the limit, a power or a factorial."""
    text = _COMMAND.sub(" ", text)
    if re.search(r"[^\W\d_]", text):
        return False  # of something unknown: nothing is worked out
    return "^" in text or "!" in text or any(int(n) > MAX_ANSWER_FACTORIAL for n in re.findall("[0-9]+", text))


def _inside(answer: str, end: int) -> str:
    """What stands in the bracket that closes at `end`."""
    depth = 0
    for start in range(end, -1, -1):
        depth += (answer[start] in ")]}") - (answer[start] in "([{")
        if not depth:
            return answer[start + 1 : end]
    return answer[:end]


def _parse_answer(answer: str) -> Parsed:
    """Read a text that is all answer. math-verify finds LaTeX only between delimiters, so bare LaTeX is given some."""
    if not _is_bare(answer):
        return _parse(answer)
    line = " ".join(answer.split()).rstrip(_TRAILING)
    parsed = _parse(f"${line}$")
    if _is_expression(parsed):
        return parsed
    # math-verify takes single letters after a space for units, as in "a + b": once more without those spaces.
    tight = _AROUND_OPERATOR.sub(r"\1", line)
    return _parse(f"${tight}$")


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> Parsed:
    """What a gold answer says; empty when it is not readable."""
    return _parse_answer(gold) if is_readable(gold) else []


def _parse(text: str) -> Parsed:
    return parse(text, parsing_timeout=None)


def _is_expression(parsed: Parsed) -> bool:
    return any(not isinstance(found, str) for found in parsed)


def _equal(gold: Parsed, answer: Parsed, comparison: Comparison) -> bool:
    first, second = (gold, answer) if comparison == "gold_first" else (answer, gold)
    return verify(first, second, timeout_seconds=None)
