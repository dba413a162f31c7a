"""Words of a checking process to its parent beside its results: the part of the check that runs, and text that it prints."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

LONGEST_PRINT = 4000
"""Characters kept of the output of one call."""

_send: Callable[[str, str], None] = lambda kind, text: None  # noqa: E731 - nobody listens outside a checking process


def tell_through(send: Callable[[str, str], None]) -> None:
    """Have `send` deliver (kind, text) from any thread; kind is "part" or "printed"."""
    global _send
    _send = send


@contextmanager
def part(name: str) -> Iterator[None]:
    """The parent names this part when the process is killed or dies in it or an error leaves it, and gets its output."""
    _send("part", name)
    output = _Output(name)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
    finally:
        output.flush()
    _send("part", "")


class _Output(io.TextIOBase):
    """Sends each line, and what is there of one when flushed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line = ""
        self._left = LONGEST_PRINT

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: self._left]
        self._left -= len(kept)
        if len(kept) < len(text) and kept:
            kept += " ... (more was printed)\n"
        *lines, self._line = (self._line + kept).split("\n")
        for line in lines:
            _send("printed", f"{self._name}: {line}")
        return len(text)

    def flush(self) -> None:
        if self._line:
            _send("printed", f"{self._name}: {self._line}")
            self._line = ""
