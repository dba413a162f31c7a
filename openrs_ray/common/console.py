"""Prints tables and reports: rich on a terminal, plain lines elsewhere; or one JSON document for programs."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

Document = Callable[[Any], None]
_STDOUT, _STDERR = 1, 2


@contextmanager
def json_output(asked: bool) -> Iterator[Document]:
    """Keep stdout for one JSON document; what the block prints, by other processes too, goes to stderr.

    with json_output(options.json) as document:
        ...                                  # progress as ever
        document({"steps": 3, "seconds": 1.5})   # written at once; does nothing without --json
    """
    if not asked:
        yield lambda content: None
        return
    with ExitStack() as held:
        out = held.enter_context(_stdout_kept())
        held.enter_context(redirect_stdout(sys.stderr))

        def write(content: Any) -> None:
            out.write(json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
            out.flush()

        yield write


@contextmanager
def _stdout_kept() -> Iterator[TextIO]:
    """Yield the real stdout, while the descriptor that other processes inherit is that of stderr."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    # In a test, or a notebook, Python's stdout is none of the process's own.
    own = _descriptor(sys.stdout) == _STDOUT
    os.dup2(_STDERR, _STDOUT)
    try:
        if own:
            with open(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace") as out:
                yield out
        else:
            yield sys.stdout
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None


def plain(value: Any) -> Any:
    """A value as JSON takes it: records as mappings, arrays as lists, paths as text, NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def show_table(console: Console, table: Table) -> None:
    """Print a table; without a terminal as `name: value` lines, or one line per row."""
    if console.is_terminal:
        console.print(table)
        return
    rows = list(zip(*(map(_plain, column.cells) for column in table.columns), strict=True))
    if table.show_header:
        rows.insert(0, tuple(_plain(column.header) for column in table.columns))
    joint = ": " if len(table.columns) == 2 and not table.show_header else " | "
    for line in ([_plain(table.title)] if table.title else []) + [joint.join(row) for row in rows]:
        say(console, line)


def show_markdown(console: Console, text: str) -> None:
    """Print a Markdown report; without a terminal as written."""
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        say(console, text)


def say(console: Console, text: str) -> None:
    """Print text without markup or wrapping."""
    console.print(text, markup=False, soft_wrap=True)


def _plain(cell: RenderableType | None) -> str:
    text = cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell or "")).plain
    return " ".join(text.split())
