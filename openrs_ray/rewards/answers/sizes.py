"""Limits on the text of answers, before any parser sees it."""

import math
import re

from openrs_ray.rewards.answers.normalise import closing

MAX_ANSWER_CHARACTERS = 1000
MAX_ANSWER_NESTING = 10
MAX_ANSWER_EXPONENT = 100_000
MAX_ANSWER_FACTORIAL = 100_000
MAX_ANSWER_SUBSCRIPTS = 20
"""Answers beyond these are wrong, unread: degenerate completions would escape the loss as timeouts."""

_POWER = re.compile(r"(?:\^|(?<=[0-9.])[eE][+-]?)(?:\\left|[{(\s])*([0-9]+)(?:\s*\^(?:\\left|[{(\s])*([0-9]+))?")
_FACTORIAL = re.compile(r"(?:([0-9]+)|([)\]}]))\s*!")
_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORKED_OUT = re.compile(r"(?:\\Gamma|gcd|lcm)(?![A-Za-z])\s*\}?\s*(?=[({])")
"""The parser works these out at once."""
_MATRIX_POWER = re.compile(r"matrix\}\s*\^\s*\{?\s*-?[0-9]{3}")
_COMMAND = re.compile(r"\\[A-Za-z]+")


def is_readable(answer: str) -> bool:
    """True if short, flat and small enough for the parser."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return False
    depth = deepest = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_ANSWER_NESTING or answer.count("_") > MAX_ANSWER_SUBSCRIPTS:
        return False
    return not (_has_huge_power(answer) or _has_huge_factorial(answer) or _works_out_much(answer))


def _has_huge_power(answer: str) -> bool:
    """Covers powers in exponents."""
    limit = math.log10(MAX_ANSWER_EXPONENT)
    return any(int(power or 1) * math.log10(int(base) or 1) > limit for base, power in _POWER.findall(answer))


def _has_huge_factorial(answer: str) -> bool:
    """True if a factorial or binomial is, or may be, of a number beyond the limit."""
    of = [found[1] or _inside(answer, found.end(2) - 1) for found in _FACTORIAL.finditer(answer)]
    return any(map(_is_huge_number, [*of, *(part for parts in _BINOMIAL.findall(answer) for part in parts)]))


def _works_out_much(answer: str) -> bool:
    starts = [found.end() for found in _WORKED_OUT.finditer(answer)]
    of = [answer[start + 1 : closing(answer, start)] for start in starts]
    return bool(_MATRIX_POWER.search(answer)) or any(map(_is_huge_number, of))


def _is_huge_number(text: str) -> bool:
    """True if a text without variables has a huge number, a power or a factorial."""
    text = _COMMAND.sub(" ", text)
    if re.search(r"[^\W\d_]", text):
        return False  # of something unknown: nothing is worked out
    return "^" in text or "!" in text or any(int(n) > MAX_ANSWER_FACTORIAL for n in re.findall("[0-9]+", text))


def _inside(answer: str, end: int) -> str:
    """Content of the bracket closed at `end`."""
    depth = 0
    for start in range(end, -1, -1):
        depth += (answer[start] in ")]}") - (answer[start] in "([{")
        if not depth:
            return answer[start + 1 : end]
    return answer[:end]
