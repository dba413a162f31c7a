"""Files that a kill leaves with the old content or the new, never half of it.

JSON-lines files are append-only: a kill can tear the last line, which readers skip and the next append closes off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from openrs_ray.common.foreign import parse_json
from openrs_ray.errors import UserError

TEMPORARY = ".tmp"
T = TypeVar("T")


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path`, synced, when the block ends well."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """None without a file. UserError when it is damaged."""
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise damaged(path) from error
    if not isinstance(content, dict):
        raise damaged(path)
    return content


def as_record(kind: type[T], content: Any, path: Path) -> T:
    """A file's content as a dataclass, checked by type. UserError when it is damaged."""
    if isinstance(content, dict) and (unknown := content.keys() - {field.name for field in fields(cast(Any, kind))}):
        raise damaged(path, f"nobody wrote {min(unknown)}")
    try:
        return cast(T, _adapter(cast(Any, kind)).validate_python(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def damaged(path: Path, what: str = "") -> UserError:
    shown = f" ({what})" if what else ""
    return UserError(f"{path} is damaged{shown}: restore it, or begin under another name or in another folder")


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def append_line(path: Path, record: Mapping[str, Any], *, synced: bool = False) -> None:
    """Append one JSON line, apart from a torn one."""
    line = json.dumps(dict(record), allow_nan=False).encode() + b"\n"
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        while line:  # a write may take a part only
            line = line[os.write(file.fileno(), line) :]
        if synced:
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; none of a missing file."""
    if not path.exists():
        return []
    records = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    for line in lines:
        with suppress(ValueError):  # torn by a kill: a prefix of an object is never valid JSON
            records.append(parse_json(line))
    return [record for record in records if isinstance(record, dict)]
