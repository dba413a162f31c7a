r"""Reads an answer: words, a letter of a multiple choice, a numeral with its base, or mathematics.

The parser of math-verify refuses what it understands in part. 0/0 and 1/0 are not values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import parse
from sympy import Basic, Eq, I, MatrixBase, S, Symbol, Tuple, nan, zoo

from openrs_ray.rewards.answers.extraction import final_boxes
from openrs_ray.rewards.answers.normalise import closing, spelled, tidy
from openrs_ray.rewards.answers.numerics import is_number, same_number
from openrs_ray.rewards.answers.sizes import is_readable
from openrs_ray.rewards.answers.units import half_of_day, without_units
from openrs_ray.rewards.answers.words import is_phrase, option, words

Value = Any
"""Untyped, as SymPy is."""

_DELIMITERS = re.compile(r"(?<!\\)\$+|\\[()\[\]](?!\\)")
_WHOLE_IN_TEXT = re.compile(r"\\text\s*\{([^{}]*[0-9][^{}]*)\}")
_SIDE_BY_SIDE = re.compile(r"[0-9]\}?\s+\{?[0-9.]")
_FUNCTION = re.compile(r"\\[A-Za-z]+\s*[_^]\s*(?:\{[^{}]*\}|[0-9A-Za-z])")
"""A function with its base or power, which a number may follow: log_2 8."""
_BASED = re.compile(r"\(?\s*([0-9A-F]+)\s*\)?\s*_\s*(?:\{\s*(?:\\text\s*\{)?\s*([0-9]+)\s*\}?\s*\}|([0-9]))")
_TIME = re.compile(r"[0-9]{1,2}\s*:\s*[0-5][0-9](?:\s*:\s*[0-5][0-9])?")
_NAME = re.compile(r"\s*(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?[A-Za-z0-9]+\}?)?\s*(?:\([^=]*\)|:[A-Za-z])?\s*")
_IMAGINARY = [Symbol("i", real=True), Symbol("i")]
_LONGEST_TEXT = 20_000  # Characters: a gold may be a whole solution
RATIO = Symbol("ratio")
"""First element of the tuple for a ratio of three or more numbers."""


@dataclass(frozen=True)
class Reading:
    """Reading of an answer; all None where it cannot be read."""

    text: str
    """Without spaces and units."""
    words: str | None = None
    option: tuple[str, bool] | None = None
    """Letter of a multiple choice, and True if it stands alone."""
    numeral: tuple[str, int] | None = None
    """Digits and base."""
    time: str | None = None
    half_of_day: str | None = None
    value: Value | None = None
    parts: tuple[str, ...] = ()
    """Sorted items of a list that is no mathematics."""


@lru_cache(maxsize=4096)
def read(answer: str) -> Reading:
    """Reading of a text that is all answer."""
    if len(answer) > _LONGEST_TEXT:
        return Reading(answer)
    whole = tidy(_bare(answer))
    inner = _WHOLE_IN_TEXT.fullmatch(whole)
    kept = without_units(inner[1] if inner else whole)
    text = re.sub(r"\s", "", kept)
    if not is_readable(kept):
        return Reading(text)
    found = words(kept)
    time = re.sub(r"\s", "", kept) if _TIME.fullmatch(kept) else None
    latex = spelled(kept)
    values = (one for one in map(_parsed, _alternatives(latex)) if one is not None)
    value = None if found else next(values, None)
    parts = _listed(latex) if value is None and not found else ()
    return Reading(text, found, option(whole), _numeral(kept), time, half_of_day(whole), value, parts)


@lru_cache(maxsize=4096)
def read_gold(gold: str) -> Reading:
    """Reading of a gold; math-verify's, for prose with formulas."""
    reading = read(gold)
    if (
        reading.value is not None
        or reading.words
        or reading.option
        or not _DELIMITERS.search(gold)
        or not is_readable(gold)
    ):
        return reading
    found = next((one for one in parse(gold, parsing_timeout=None) if not isinstance(one, str)), None)
    return Reading(reading.text, value=found if _is_value(found) else None)


def says_words(answer: str) -> bool:
    """True for words or a letter of a multiple choice; faster than `read`."""
    whole = tidy(_bare(answer))
    return bool(words(without_units(whole))) or option(whole) is not None


def is_answer(reading: Reading, gold: str) -> bool:
    """True if answers can be compared with a gold's reading."""
    if reading.words:
        return not is_phrase(tidy(_bare(gold)))
    said = (reading.value, reading.numeral, reading.option, reading.time)
    return any(one is not None for one in said)


def _bare(answer: str) -> str:
    """Content of the boxes, else all, without delimiters of formulas."""
    boxed = final_boxes(answer)
    return _DELIMITERS.sub(" ", answer if boxed is None else boxed)


def _listed(latex: str) -> tuple[str, ...]:
    parts = sorted(filter(None, (re.sub(r"\s", "", part) for part in _parts(latex, ","))))
    return tuple(parts) if len(parts) > 1 else ()


def _numeral(text: str) -> tuple[str, int] | None:
    found = _BASED.fullmatch(text)
    return (found[1].lstrip("0") or "0", int(found[2] or found[3])) if found else None


def _alternatives(latex: str) -> Iterator[str]:
    """The text, then its part behind a name: P(X>2) = 1/3."""
    if _SIDE_BY_SIDE.search(_FUNCTION.sub("", latex)) and "matrix" not in latex:
        return
    yield latex
    name, _, rest = latex.partition("=")
    if rest and "=" not in rest and (_NAME.fullmatch(name) or name.endswith(")")):
        yield rest.strip()


def _parsed(latex: str) -> Value | None:
    parts = _parts(latex, ":")
    try:
        if len(parts) > 2 and "=" not in latex:
            first, *others = map(_latex, parts)
            return Tuple(RATIO, *(other / first for other in others))
        value = _latex(latex)
    except Exception:  # the parser raises whatever SymPy and ANTLR do
        return None
    return value if _is_value(value) else None


def _latex(latex: str) -> Value:
    found = latex2sympy(latex, is_real=True, convert_degrees=True, normalization_config=None)
    return _with_imaginary_unit(_last_of_chain(found))


def _with_imaginary_unit(value: Value) -> Value:
    if isinstance(value, MatrixBase | Basic) and any(value.has(symbol) for symbol in _IMAGINARY):
        if isinstance(value, FiniteSet):
            return FiniteSet(*(_with_imaginary_unit(one) for one in value._unsorted_args))
        return value.xreplace(dict.fromkeys(_IMAGINARY, I))
    return value


def _last_of_chain(value: Value) -> Value:
    """m + n = 256 + 37 = 293 as m + n = 293. ValueError for 5 = 6."""
    chain = value._unsorted_args if isinstance(value, And) else [value]
    if not all(isinstance(link, Eq) for link in chain):
        return value
    sides = [chain[0].lhs, *(link.rhs for link in chain)]
    numbers = [side for side in sides if is_number(side)]
    if any(not same_number(number, numbers[-1]) for number in numbers[:-1]):
        raise ValueError("the chain contradicts itself")
    if len(numbers) == len(sides):
        return sides[-1]
    return Eq(sides[0], sides[-1], evaluate=False) if len(sides) > 2 else value


def _parts(latex: str, separator: str) -> list[str]:
    """Parts of a text between separators outside brackets."""
    parts, start, place = [], 0, 0
    while place < len(latex):
        if latex[place] in "({[":
            place = closing(latex, place)
        elif latex[place] == separator:
            parts.append(latex[start:place])
            start = place + 1
        place += 1
    return [*parts, latex[start:]]


def _is_value(value: Value | None) -> bool:
    if value is None or value is S.true or value is S.false:
        return False
    return isinstance(value, Basic | MatrixBase) and not value.has(nan, zoo)
