"""Finds the cell of a column by name; in "reward_model.ground_truth" the dot leads into a struct or into JSON text."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from openrs_ray.common.foreign import parse_json
from openrs_ray.common.formatting import quoted
from openrs_ray.errors import UserError

Value = TypeVar("Value")


class CellError(ValueError):
    """Its text follows "row 3 of FILE, column 'answer': "."""


class NoColumn(CellError):
    """Its text follows "row 3 of FILE has no column 'answer' "."""


def cell(row: Mapping[str, Any], column: str) -> Any:
    """None where the cell, or a struct around it, is null. NoColumn, or CellError for a dot into plain text."""
    name = top_column(column, row)
    if name is None:
        raise NoColumn(f"({_columns_text(row)})")
    value = row[name]
    if name == column or value is None:
        return value
    rest = column[len(name) + 1 :]
    try:
        return cell(_fields(value, rest), rest)
    except NoColumn as error:
        raise NoColumn(f"in {name} {error}") from None


def _columns_text(row: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, row))
    if len(row) == 1 and any(mark in names for mark in ",;\t"):  # as of a .csv with semicolons
        return f"its only column is {names!r}: cells of a .csv are separated by commas, of a .tsv by tabs"
    return f"it has: {names}"


def top_column(column: str, names: Collection[str]) -> str | None:
    """First part of a dotted column, the longest match of several."""
    parts = column.split(".")
    heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((head for head in heads if head in names), None)


def column_cells(rows: Sequence[Mapping[str, Any]], column: str, source: str, setting: str) -> list[Any]:
    """UserError with the first row that lacks the column, and the setting that names it."""
    cells = []
    for number, row in enumerate(rows, start=1):
        try:
            cells.append(cell(row, column))
        except NoColumn as error:
            raise UserError(f"row {number} of {source} has no column {column!r} {error}: set {setting}") from error
        except CellError as error:
            raise UserError(f"row {number} of {source}, column {column!r}: {error}") from error
    return cells


def read_cells(cells: Sequence[Any], read: Callable[[Any], Value], source: str, column: str) -> list[Value]:
    """Cells converted by `read`. UserError with row and column for its CellError."""
    values = []
    for number, value in enumerate(cells, start=1):
        try:
            values.append(read(value))
        except CellError as error:
            raise UserError(f"row {number} of {source}, column {column!r}: {error}") from error
    return values


def json_value(text: str) -> Any:
    """None where the text is not JSON."""
    try:
        return parse_json(text)
    except ValueError:
        return None


def kind(value: Any) -> str:
    """Type and shortened value in words. Example: bytes (b"12")"""
    names = {dict: "a struct", list: "a list", tuple: "a list", bool: "a truth value", type(None): "nothing"}
    return f"{names.get(type(value), type(value).__name__)} ({quoted(value)})"


def _fields(value: Any, wanted: str) -> Mapping[str, Any]:
    fields = json_value(value) if isinstance(value, str) else value
    if not isinstance(fields, Mapping):
        holds = f"text that is no JSON object ({kind(value)})" if isinstance(value, str) else kind(value)
        raise CellError(f"there is no {wanted!r} in {holds}")
    return fields
