"""Prints tables and reports: rich on a terminal, plain lines elsewhere."""

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text


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
