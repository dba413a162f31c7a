r"""Tells values from expressions that are still to be worked out: \boxed{47+38} for a gold of 85 copies the problem."""

import re

from openrs_ray.rewards.answers.normalise import spelled, tidy
from openrs_ray.rewards.answers.units import without_units

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_VALUE = re.compile(
    rf"[-+]?(?:{_NUMBER}(?:\\cdot10\^(?:\{{[-+]?[0-9]+\}}|[0-9]))?|10\^(?:\{{[-+]?[0-9]+\}}|[0-9])"
    rf"|[0-9]{{1,3}}(?:,[0-9]{{3}})+(?:\.[0-9]+)?|{_NUMBER}/{_NUMBER}|[0-9]*\\frac\{{-?{_NUMBER}\}}\{{-?{_NUMBER}\}}"
    r"|[0-9]+:[0-9]+)\\?%?"
)


def is_value(answer: str) -> bool:
    r"""True for a written number: 85, -3/4, 2.5 cm, 3 \times 10^4, 40 %, or "x = 85"."""
    last = _squeezed(re.split(r"=|\\approx", spelled(without_units(tidy(answer))))[-1])
    grouped = re.fullmatch(r"\{([^{}]*)\}", last)
    return bool(_VALUE.fullmatch(grouped[1] if grouped else last))


def copies(answer: str, problem: str) -> bool:
    """True for an expression of numbers that the problem contains."""
    expression = _squeezed(spelled(tidy(answer)))
    if not re.search(r"[0-9].*[-+/*^!\\].*[0-9]", expression) or is_value(answer):
        return False
    return expression in _squeezed(spelled(tidy(problem.replace("$", " "))))


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text).replace(r"\times", r"\cdot")
