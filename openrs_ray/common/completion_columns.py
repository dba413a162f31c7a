"""Columns that every file of completions begins with, in training, evaluation and curation."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

COMMON = pa.schema(
    [
        ("task", pa.string()),  # or benchmark, or stage of a curation; "" where a run has one task
        ("problem_index", pa.int64()),
        ("sample", pa.int32()),
        ("problem", pa.string()),  # as the user wrote it
        ("prompt", pa.string()),  # as the model saw it
        ("gold", pa.list_(pa.string())),
        ("row", pa.string()),  # JSON
        ("text", pa.string()),  # with the template's opening
        ("token_ids", pa.list_(pa.int32())),
        ("length", pa.int32()),  # sampled tokens
        ("finish_reason", pa.string()),
        ("status", pa.string()),
        ("answer", pa.string()),
        ("detail", pa.string()),
        ("worker", pa.int32()),
    ]
)

REPEATED = ("task", "problem_index", "problem", "prompt", "gold.list.element", "row")
"""Columns, as Parquet names them, that are the same for all completions of a problem."""

_MOST_CHARACTERS = 2000


def with_common(*own: tuple[str, pa.DataType]) -> pa.Schema:
    """A schema of the common columns, then a family's own."""
    return pa.schema([*COMMON, *own])


def row_json(row: Mapping[str, Any], problem: str) -> str | None:
    """A row of the data for the column `row`, without the problem's text and empty cells; None if nothing is left.

    Cells of over 2,000 characters are cut: some rows hold megabytes of test cases.
    """
    kept = [name for name, value in row.items() if not (value is None or (isinstance(value, str) and value == problem))]
    cells = [f"{json.dumps(str(name))}: {_cell(row[name])}" for name in kept]
    return f"{{{', '.join(cells)}}}" if cells else None


def _cell(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, default=str)
    except (ValueError, TypeError):  # not a number, or keys that JSON has not
        text = json.dumps(str(value))
    if len(text) <= _MOST_CHARACTERS:
        return text
    whole = value if isinstance(value, str) else text
    return json.dumps(f"{whole[:_MOST_CHARACTERS]}... ({len(whole):,} characters)")
