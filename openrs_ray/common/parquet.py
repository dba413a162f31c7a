"""Parquet files: written whole or not at all, and read with their checksums; older ones have none and are read unchecked."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrs_ray.common.files import replacing
from openrs_ray.common.foreign import why
from openrs_ray.errors import UserError


def write_table(
    path: Path,
    rows: pa.Table,
    *,
    checksum_in_name: bool = False,
    few_values: Sequence[str] | None = None,
    together: int | None = None,
) -> Path:
    """Write a file and its folder; returns the path, ending in -9f3c21d0.parquet with the CRC-32 in the name.

    `few_values`: columns with few different values; only these get a dictionary (None: all that can). `together`: rows that can
    only be read together.
    """
    sink = pa.BufferOutputStream()
    how: dict[str, Any] = {"use_dictionary": True if few_values is None else [*few_values], "row_group_size": together}
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True, **how)
    content = sink.getvalue()
    if checksum_in_name:
        path = path.with_name(f"{path.stem}-{zlib.crc32(content):08x}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_table(
    path: Path, columns: list[str] | None = None, schema: pa.Schema | None = None, crc32: int | None = None
) -> pa.Table:
    """UserError when the rows are not those that were written. `schema`: to read as. `crc32`: of the whole file."""
    try:
        content = path.read_bytes()
        if crc32 is not None and zlib.crc32(content) != crc32:
            raise UserError(f"{path} does not have the content that was written")
        source = pa.BufferReader(content)
        table = pq.read_table(source, columns=columns, schema=schema, page_checksum_verification=True)
        table.validate(full=True)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from error
    return table


def column_names(path: Path) -> list[str]:
    """UserError when the file cannot be read."""
    try:
        return list(pq.read_schema(path).names)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({why(error)})") from error
