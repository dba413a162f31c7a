"""Catches what bypasses Python's `sys.stderr`: code below Python, such as Ray's, and loggers that were set up earlier."""

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress

_PIPE_BYTES = 1 << 20
_LAST_S = 0.5
"""For lines that are still on their way when it stops; a child process may hold the pipe open for longer."""


class RawErrors:
    """Hands on the lines of file descriptor 2 between start() and stop(), in a thread of its own, if that is a terminal."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._stopped = threading.Event()
        self._terminal = -1
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        if not os.isatty(2):
            return
        self._terminal = os.dup(2)
        read, write = os.pipe()
        with suppress(OSError):  # room for what code below Python writes while it keeps the reading thread from running
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.dup2(write, 2)
        os.close(write)
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Later lines go to the terminal, those of children that were started meanwhile, too."""
        if self._reader is None or self._stopped.is_set():
            return
        if not os.isatty(self._terminal):  # it has been closed: whoever writes to it would fail
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._terminal)
            os.close(nowhere)
        os.dup2(self._terminal, 2)
        self._reader.join(_LAST_S)
        self._stopped.set()

    def _read(self, source: int) -> None:
        """Never ends before the last writer, which would otherwise wait for ever, or be killed by SIGPIPE."""
        with open(source, encoding="utf-8", errors="replace", newline="") as lines:
            for line in lines:
                try:
                    if not self._stopped.is_set():
                        self._tell(line.rstrip("\r\n"))
                    else:
                        os.write(self._terminal, line.encode())
                except (OSError, ValueError):
                    continue  # the screen is gone
