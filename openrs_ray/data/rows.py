"""Reading the rows of a data set: a .jsonl, .json or .parquet file, a built-in, or a Hub id.

Rows come out as plain dictionaries in file order. Whatever cannot be read ends in a UserError that says where.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from openrs_ray import builtin
from openrs_ray.errors import UserError, first_line
from openrs_ray.foreign import parse_json, reading, why

Row = dict[str, Any]


def read_rows(path: str, split: str, subset: str | None = None, columns: Collection[str] | None = None) -> list[Row]:
    """All rows of `path`; `split` and `subset` only matter for a Hub id. Raises UserError when missing, unreadable or empty.

    Of a Hub data set only `columns` are read where it has them all: some have others of many gigabytes.
    """
    if path in builtin.DATA:
        rows = _read_lines(builtin.data_path(path))
    elif (read := _READERS.get(Path(path).suffix)) is not None:
        with reading(f"cannot read data.path {path!r}"):  # ~ of nobody, or too long a name
            file = Path(path).expanduser()
            exists = file.is_file()
        if not exists:
            raise UserError(
                f"no data file at {file.absolute()}: set data.path (or evaluation.path) to a file that exists"
            )
        with reading(f"cannot read {file}"):
            rows = read(file)
    elif builtin.looks_like_hub_id(path) or Path(path).expanduser().is_dir():
        rows = _read_hub(path, split, subset, columns)
    else:
        raise UserError(
            f"cannot read data from {path!r}: give a .jsonl, .json or .parquet file, a Hub id such as owner/name, "
            f"or one of {', '.join(builtin.DATA)}"
        )
    if not rows:
        raise UserError(f"{path} holds no problems")
    return rows


def _read_lines(file: Path) -> list[Row]:
    rows = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_as_row(_parse(line, f"line {number} of {file}"), f"line {number} of {file}"))
    return rows


def _read_json(file: Path) -> list[Row]:
    rows = _parse(file.read_bytes(), str(file))
    if not isinstance(rows, list):
        raise UserError(
            f"{file} must hold a JSON list of objects, not {type(rows).__name__}; one object per line is .jsonl"
        )
    return [_as_row(row, f"element {number} of {file}") for number, row in enumerate(rows, start=1)]


def _read_parquet(file: Path) -> list[Row]:
    with reading(f"cannot read {file} as Parquet"):
        rows: list[Row] = pyarrow.parquet.read_table(file).to_pylist()
    return rows


def _read_hub(path: str, split: str, subset: str | None, columns: Collection[str] | None) -> list[Row]:
    import datasets  # takes seconds to import, and local files do without it

    try:
        read = datasets.load_dataset(path, subset, split=split)
        if columns is not None and set(columns) <= set(read.column_names):
            read = read.select_columns(list(dict.fromkeys(columns)))
        return [dict(row) for row in read]
    except Exception as error:  # whatever its readers, for any format and from any host, raise
        raise UserError(
            f"cannot load split {split!r} of data set {path!r} from the Hub, subset {subset or 'not given (data.subset)'}: "
            f"{why(error)}"
        ) from error


_READERS = {".jsonl": _read_lines, ".json": _read_json, ".parquet": _read_parquet}


def _parse(text: bytes, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:  # JSONDecodeError, or bytes that are not UTF-8
        raise UserError(f"{where} is not valid JSON: {first_line(error)}") from error


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object with columns but {type(value).__name__}")
    return value
