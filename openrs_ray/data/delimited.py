"""Reads CSV and TSV files. Numbers stay as they were written."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrs_ray.common.foreign import why
from openrs_ray.errors import UserError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_delimited(file: Path) -> list[dict[str, Any]]:
    """Rows, keyed by the header. UserError with the line of a row that does not fit it."""
    csv.field_size_limit(sys.maxsize)  # written-out solutions are longer than its 128 KiB
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            return list(_rows(csv.reader(text, delimiter=_DELIMITERS[file.suffix], strict=True), file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} as text in UTF-8: {why(error)}") from error


def _rows(reader: Any, file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a `csv.reader`, whose type has no public name."""
    try:
        header: list[str] = next(reader, [])
        if twice := {name for name in header if header.count(name) > 1}:
            raise UserError(f"the header of {file} names the column {min(twice)!r} twice")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise UserError(
                    f"line {reader.line_num} of {file} ends a row of {len(cells)} cells, but the header has {len(header)}: "
                    "cells with a comma, a tab or a line break in them need quotes"
                )
            if cells:
                yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"line {reader.line_num} of {file} is not valid CSV: {why(error)}") from error
