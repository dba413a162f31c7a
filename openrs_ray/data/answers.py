"""Reads gold answers from a cell: text, a finite number, or a flat list of them. CellError for anything else."""

import json
import math
from decimal import Decimal
from typing import Any

from openrs_ray.data.columns import CellError, json_value, kind
from openrs_ray.rewards.answers.extraction import last_boxed

Gold = tuple[str, ...]
"""Accepted answers; any one of them makes a completion correct."""


def gold_answers(cell: Any, after: str | None = None) -> Gold:
    r"""Accepted answers in one cell: its texts, or the last \boxed{} in each; with `after`, what follows that marker."""
    answers = [_answer(text, after) for text in cell_texts(cell)]
    return tuple(answer for answer in answers if answer)


def whole_cell(cell: Any) -> Gold:
    """The cell's text as the only answer, or each text of a list."""
    return tuple(cell_texts(cell)) or ("",)


def tests_in(cell: Any) -> Gold:
    """A program's tests: the texts of a list, or one text; any other value as JSON."""
    if isinstance(cell, list | tuple) and all(isinstance(one, str) for one in cell):
        return tuple(cell)
    if cell is None or isinstance(cell, str):
        return (cell,) if cell else ()
    try:
        return (json.dumps(cell),)
    except (TypeError, ValueError) as error:
        raise CellError(f"tests are text, a list of texts, or inputs with outputs, not {kind(cell)}") from error


def cell_texts(cell: Any) -> list[str]:
    """Texts in a cell: its own, its number's, or those of a list without nulls."""
    values = _list_in(cell) if isinstance(cell, str) else cell
    return [_text(one) for one in (values if isinstance(values, list | tuple) else [values]) if one is not None]


def _list_in(text: str) -> Any:
    """The list in '["34", "35"]'; other text unchanged."""
    values = json_value(text) if text.lstrip().startswith('["') else None
    is_list = isinstance(values, list) and all(isinstance(one, str) for one in values)
    return values if is_list else text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise CellError(f"an answer is text, a finite number or a flat list of them, not {kind(value)}")
    if isinstance(value, int):
        return str(value)
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise CellError(f"an answer is text or a finite number, not {kind(value)}")
    if isinstance(value, Decimal):
        return _without_zeros(f"{value:f}")
    return f"{value:.0f}" if value.is_integer() else repr(value)


def _without_zeros(decimal: str) -> str:
    """72.500 becomes 72.5: the zeros come from a column's scale."""
    return decimal.rstrip("0").rstrip(".") if "." in decimal else decimal


def _answer(text: str, after: str | None) -> str:
    if after is not None:
        _, marker, text = text.rpartition(after)
        if not marker:
            return ""
    boxed = last_boxed(text)
    return (text if boxed is None else boxed).strip()
