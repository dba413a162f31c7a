"""Rows of the table: a part's findings."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Size = Literal["full", "tiny"]
"""Of a part's inputs: for a GPU, or for a dry run on a CPU."""
Verdict = Literal["ok", "failed", "missed", ""]
"""A row that failed makes its part a failed one; one that missed is slower or larger than was aimed at."""


@dataclass(frozen=True, slots=True)
class Row:
    """Example: Row("12/2 x 128, output", "0.0031", "<= 0.01", "ok")"""

    what: str
    figure: str
    target: str = ""
    verdict: Verdict = ""
    value: float | None = None
    """The figure as a number, in this unit."""
    unit: str = ""


Function = Callable[[Size], Iterator[Row]]


class Skip(Exception):
    """This part cannot run here, and why."""


def noted(what: str, figure: object, unit: str = "") -> Row:
    """Only to be known. A float is shown with four digits."""
    shown = f"{figure:,.4g}" if isinstance(figure, float) else str(figure)
    number = float(figure) if isinstance(figure, int | float) and not isinstance(figure, bool) else None
    return Row(what, f"{shown} {unit}".strip(), value=_finite(number), unit=unit)


def at_most(what: str, value: float, bound: float, unit: str = "") -> Row:
    """Right or wrong; NaN is wrong."""
    verdict: Verdict = "ok" if value <= bound else "failed"
    return Row(what, f"{value:,.3g} {unit}".strip(), f"<= {bound:g} {unit}".strip(), verdict, _finite(value), unit)


def true(what: str, holds: bool, shown: str = "") -> Row:
    return Row(what, shown or ("yes" if holds else "no"), "yes", "ok" if holds else "failed")


def aim(what: str, value: float, target: float, unit: str = "", *, least: bool) -> Row:
    """Good or not good enough: at least the target, or at most."""
    reached = value >= target if least else value <= target
    sign = ">=" if least else "<="
    verdict: Verdict = "ok" if reached else "missed"
    return Row(what, f"{value:,.4g} {unit}".strip(), f"{sign} {target:g} {unit}".strip(), verdict, _finite(value), unit)


def _finite(value: float | None) -> float | None:
    """None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None
