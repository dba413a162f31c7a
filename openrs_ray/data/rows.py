"""Reads the rows of a data set: a .jsonl(.gz), .json, .parquet, .csv or .tsv file, a folder of them, a built-in, or a Hub id."""

import gzip
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from openrs_ray.common import hub
from openrs_ray.common.foreign import parse_json, reading, why
from openrs_ray.data.columns import top_column
from openrs_ray.data.delimited import read_delimited
from openrs_ray.data.folder import data_files, data_form
from openrs_ray.errors import UserError
from openrs_ray.models import bundled as builtin

Row = dict[str, Any]


def read_rows(
    path: str,
    split: str,
    subset: str | None = None,
    columns: Collection[str] | None = None,
    given_by: str = "data.path (or evaluation.path)",
) -> list[Row]:
    """Rows of `path` in file order; the other arguments matter for a Hub id. UserError when unreadable or empty."""
    with reading(f"cannot read {given_by} {path!r}"):  # ~ of nobody, or too long a name
        file = Path(path).expanduser()
        folder = file.is_dir()
    check_there(path, given_by)
    if path in builtin.DATA:
        rows = _read_lines(builtin.data_path(path))
    elif folder:
        files = data_files(file)
        rows = [row for one in files for row in _rows_of(one)] or _read_hub(path, split, subset, columns)
    elif data_form(file.name):
        rows = _rows_of(file)
    elif builtin.looks_like_hub_id(path):
        rows = _read_hub(path, split, subset, columns)
    else:
        raise UserError(
            f"cannot read data from {path!r}: give a .jsonl, .json, .parquet, .csv or .tsv file, a folder of such files, a Hub "
            f"id such as owner/name, or one of {', '.join(builtin.DATA)}"
        )
    if not rows:
        raise UserError(f"the data in {path} holds no problems")
    return rows


def check_there(path: str, given_by: str = "data.path (or evaluation.path)") -> None:
    """UserError for a data file that does not exist. `given_by`: field or option that names it."""
    with reading(f"cannot read {given_by} {path!r}"):
        file = Path(path).expanduser()
        if data_form(file.name) and not file.exists():
            raise UserError(
                f"no data file at {file.absolute()}: set {given_by} to a file that exists"
                + ("" if file.is_absolute() else ", by a path from the working directory")
            )


def _rows_of(file: Path) -> list[Row]:
    with reading(f"cannot read {file}"):
        return _READERS[data_form(file.name)](file)


def _read_lines(file: Path) -> list[Row]:
    with file.open("rb") as lines:
        return _line_rows(lines, file)


def _read_compressed(file: Path) -> list[Row]:
    try:
        with gzip.open(file) as lines:
            return _line_rows(lines, file)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot unpack {file}: {why(error)}") from error


def _line_rows(lines: Iterable[bytes], file: Path) -> list[Row]:
    rows = []
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
        rows: list[Row] = _as_written(pyarrow.parquet.read_table(file)).to_pylist()
    return rows


def _as_written(table: pyarrow.Table) -> pyarrow.Table:
    """32-bit numbers, nested ones too, as they were written: 0.1, not 0.10000000149011612."""
    for place, column in enumerate(table.schema):
        text = _in_place_of_float32(column.type, pyarrow.string())
        if text != column.type:
            decimal = _in_place_of_float32(column.type, pyarrow.float64())
            table = table.set_column(place, column.name, table.column(place).cast(text).cast(decimal))
    return table


def _in_place_of_float32(kind: pyarrow.DataType, other: pyarrow.DataType) -> pyarrow.DataType:
    if pyarrow.types.is_float32(kind):
        return other
    if pyarrow.types.is_list(kind):
        inner = _in_place_of_float32(kind.value_type, other)
        return kind if inner == kind.value_type else pyarrow.list_(inner)
    if pyarrow.types.is_struct(kind):
        fields = [field.with_type(_in_place_of_float32(field.type, other)) for field in kind]
        return kind if fields == list(kind) else pyarrow.struct(fields)
    return kind


def _read_hub(path: str, split: str, subset: str | None, columns: Collection[str] | None) -> list[Row]:
    hub.problem()  # the library works offline where there is one
    import datasets  # takes seconds to import, and local files do without it

    try:
        read = datasets.load_dataset(path, subset, split=split)
        wanted = [top_column(column, read.column_names) for column in columns or ()]
        if wanted and None not in wanted:  # other columns may hold many gigabytes
            read = read.select_columns(list(dict.fromkeys(wanted)))
        return [dict(row) for row in read]
    except Exception as error:  # whatever its readers, for any format and from any host, raise
        where = "the folder" if Path(path).expanduser().is_dir() else "the Hub"
        if where == "the Hub" and (missing := hub.unreachable(path, "give its file instead of its name")):
            raise missing from error
        raise UserError(
            f"cannot load split {split!r} of data set {path!r} from {where}, subset {subset or 'not given (data.subset)'}: "
            f"{why(error)}"
        ) from error


_READERS: dict[str | None, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_lines,
    ".jsonl.gz": _read_compressed,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": read_delimited,
    ".tsv": read_delimited,
}


def _parse(text: bytes, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:  # JSONDecodeError, or bytes that are not UTF-8
        raise UserError(f"{where} is not valid JSON: {why(error)}") from error


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object with columns but {type(value).__name__}")
    return value
