"""Ends a finished run under a deadline, even when Ray hangs."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import psutil

DEADLINE_S = 45.0
"""Longer than an engine takes to stop (30 s), shorter than Ray waits for its gcs_server (60 s)."""


class Shutdown:
    """Deadline for closing: past it, says what is waited for and ends this process and its children.

    with Shutdown() as shutdown:
        shutdown.waits_for("the actors", code)   # from now on the deadline runs
    """

    def __init__(self, last: Callable[[], object] = lambda: None, deadline_s: float = DEADLINE_S) -> None:
        """`last`: called before the process ends, at the deadline, too."""
        self._last = last
        self._deadline_s = deadline_s
        self._what, self._code, self._unsaid = "", 1, ""
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> "Shutdown":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def waits_for(self, what: str, code: int | None = None, unsaid: str = "") -> None:
        """`code`: the run's exit code; `unsaid`: its reason, if it has not been shown yet."""
        self._what = what
        if code is not None:
            self._code, self._unsaid = code, unsaid
        if self._watch is None:
            self._watch = threading.Thread(target=self._end_late, daemon=True)
            self._watch.start()

    def _end_late(self) -> None:
        if self._over.wait(self._deadline_s):
            return
        with suppress(OSError):
            self._last()
            sys.stderr.write(
                f"{self._unsaid}the run is over and its files are written, but {self._what} did not end within "
                f"{self._deadline_s:.0f} s (does Ray's gcs_server still run?): its processes are killed\n"
            )
            sys.stderr.flush()
        end_descendants()
        os._exit(self._code)


def end_descendants() -> None:
    family = psutil.Process().children(recursive=True)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)
