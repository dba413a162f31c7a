"""Reads chosen columns and rows of files of completions, of this and of older versions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openrs_ray.common.foreign import why
from openrs_ray.errors import RunError
from openrs_ray.evaluation.store import OLDER_NAMES
from openrs_ray.evaluation.store import SCHEMA as EVALUATED
from openrs_ray.run.completions import SCHEMA as TRAINED

_TYPES = {field.name: field.type for field in (*EVALUATED, *TRAINED)}


def read_columns(path: Path, columns: Sequence[str], rows: np.ndarray | None = None) -> pa.Table:
    """Columns of all rows, or of these in their order; null where the file lacks one. RunError where it is damaged.

    Only the columns' own bytes are read, and of files with many rows only the parts (row groups) that hold `rows`.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = _names(file.schema_arrow, columns)
            written = [name for name in names.values() if name is not None]
            table = file.read(written) if rows is None else _chosen(file, written, rows)
            parts = [_part(table, names[column], _TYPES[column]) for column in columns]
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({why(error)})") from error
    return pa.table(parts, names=list(columns))


def _names(schema: pa.Schema, columns: Sequence[str]) -> dict[str, str | None]:
    """Names in the file, by column."""
    names = {column: column if column in schema.names else None for column in columns}
    if "benchmark" in schema.names:
        now = {new: older for older, new in OLDER_NAMES.items()}
        names = {column: now.get(column, name) for column, name in names.items()}
    return names


def _chosen(file: pq.ParquetFile, written: Sequence[str], rows: np.ndarray) -> pa.Table:
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    groups = np.searchsorted(starts, rows, side="right") - 1
    needed = np.unique(groups)
    table = file.read_row_groups(needed.tolist(), list(written))
    before = np.cumsum([0, *(sizes[group] for group in needed)])
    places = rows - starts[groups] + before[np.searchsorted(needed, groups)]
    return table.take(pa.array(places))


def _part(table: pa.Table, name: str | None, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    return pa.nulls(len(table), kind) if name is None else table[name].cast(kind)
