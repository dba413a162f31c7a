"""A terminal for tests: the look of bytes on a screen, with all that has scrolled off; and one with a process in it."""

import codecs
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence

_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\].*?(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Screen:
    """Understands what rich writes, plain text and typed ^C; anything else is a ValueError. Lines that scroll off are kept."""

    def __init__(self, columns: int = 80, rows: int = 24, reflows: bool = False) -> None:
        """`reflows`: a resize folds long lines anew, as most terminals do; others cut them."""
        self.columns, self.rows, self.reflows = columns, rows, reflows
        self._lines: list[str] = [""]
        self._joined: set[int] = set()  # lines that continue the one before
        self._row = self._column = 0
        self.cursor_shown = True
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        """All lines, those that have scrolled off first, without the empty ones at the end."""
        lines = [line.rstrip() for line in self._lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        place = 0
        while place < len(text):
            if text[place] == "\x1b":
                found = _CONTROL.match(text, place)
                if not found:
                    if len(text) - place < 12:  # the rest has not arrived yet
                        self._rest = text[place:]
                        return
                    raise ValueError(f"unknown control sequence {text[place : place + 12]!r}")
                self._control(found[1] or "", found[2] or "")
                place = found.end()
            else:
                self._character(text[place])
                place += 1

    def _control(self, values: str, letter: str) -> None:
        if letter in ("h", "l") and values == "?25":
            self.cursor_shown = letter == "h"
        elif letter == "A":
            self._row = max(self._top, self._row - int(values or 1))
        elif letter == "K" and values == "2":
            self._lines[self._row] = ""
        elif letter not in ("m", ""):
            raise ValueError(f"unknown control sequence {values}{letter}")

    def _character(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._down()
        elif letter >= " ":
            if self._column >= self.columns:
                self._down()
                self._column = 0
                self._joined.add(self._row)
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
            self._column += 1
        elif letter not in ("\x07", "\x00"):
            raise ValueError(f"unknown character {letter!r}")

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append("")
        self._joined.discard(self._row)

    @property
    def _top(self) -> int:
        return max(0, len(self._lines) - self.rows)

    def resize(self, columns: int) -> None:
        if self.reflows:
            self._reflow(columns)
        elif columns < self.columns:
            self._lines = [line[:columns] for line in self._lines]
            self._column = min(self._column, columns)
        self.columns = columns

    def _reflow(self, columns: int) -> None:
        whole: list[str] = []
        for number, line in enumerate(self._lines[: self._row + 1]):
            if number in self._joined:
                whole[-1] += line
            else:
                whole.append(line)
        self._lines, self._joined = [], set()
        for line in whole:
            for start in range(0, max(1, len(line)), columns):
                if start:
                    self._joined.add(len(self._lines))
                self._lines.append(line[start : start + columns])
        self._row = len(self._lines) - 1
        self._column = len(self._lines[-1])


class Terminal:
    """A process in a pseudo-terminal. `screen` shows it; `history` has every state of the last lines that was seen."""

    def __init__(
        self, command: Sequence[str], columns: int = 80, rows: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self.screen = Screen(columns, rows)
        self.history: list[list[str]] = []
        """The last lines after every piece of output, without repetitions."""
        self.raw = b""
        self._ours, theirs = pty.openpty()
        self._set_size(columns, rows)
        environment = {**(env or os.environ), "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            preexec_fn=_control_terminal,
        )  # fmt: skip
        os.close(theirs)
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the last process has closed it
                piece = b""
            with self._changed:
                self.raw += piece
                self.screen.feed(decode(piece))
                if not self.history or self.history[-1] != self.screen.lines[-3:]:
                    self.history.append(self.screen.lines[-3:])
                self._changed.notify_all()
            if not piece:
                return

    def resize(self, columns: int) -> None:
        with self._changed:
            self.screen.resize(columns)
            self._set_size(columns, self.screen.rows)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_until(self, holds: Callable[[list[str]], bool], seconds: float) -> list[str]:
        """The lines as soon as it holds. AssertionError when it does not."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.screen.lines), seconds), "\n".join(self.screen.lines)
            return self.screen.lines

    def finish(self, seconds: float) -> tuple[int, list[str]]:
        """Exit code and all lines."""
        try:
            code = self.process.wait(seconds)
        finally:
            self.end()
        return code, self.screen.lines

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        os.close(self._ours)


def _control_terminal() -> None:
    """Makes standard input the session's terminal, so that ^C reaches it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
