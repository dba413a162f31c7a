"""The log of an attempt, `attempts/NNN/log.txt`: everything shown, in plain lines with the time.

A start that ends before its attempt begins leaves its lines to the next one, of the same number.
"""

import io
import logging
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleRenderable, NewLine, RenderHook
from rich.control import Control
from rich.text import Text

from openrs_ray.common.redaction import hide_secrets
from openrs_ray.run.attempts import next_attempt
from openrs_ray.run.live import FoldedLine, ForeignLine

FOLDER = "attempts"
FILE = "log.txt"
_WIDTH = 120
_OWN_LOGGERS = ("", "ray", "transformers")
"""Loggers that do not propagate to another of these."""


def attempt_folder(run_folder: Path, attempt: int | None = None) -> Path:
    """Folder of an attempt (None: of the one that begins next)."""
    return run_folder / FOLDER / f"{attempt or next_attempt(run_folder):03d}"


def newest_log(run_folder: Path) -> Path | None:
    return max((run_folder / FOLDER).glob(f"*/{FILE}"), default=None)


def append_lines(path: Path, text: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    lines = "".join(f"{now} {line}\n" for line in hide_secrets(text).splitlines())
    with path.open("ab", buffering=0) as file:
        file.write(lines.encode(errors="replace"))


class RunLog(RenderHook):
    """Logs a console's output, libraries' logs and warnings, and the error that ends the block."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self._path = folder / FILE
        self._console = console
        self._ends = ExitStack()

    def __enter__(self) -> "RunLog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._console.push_render_hook(self)
        self._ends.callback(self._console.pop_render_hook)
        handler = _Handler(self)
        for name in _OWN_LOGGERS:
            logging.getLogger(name).addHandler(handler)
            self._ends.callback(logging.getLogger(name).removeHandler, handler)
        self._take_warnings()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ends.close()
        if error is not None:
            self.write(f"error: {error}" if str(error) else f"error: {type(error).__name__}")

    def _take_warnings(self) -> None:
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            self.write(f"{category.__name__}: {message}")
            shown(message, category, *where, **more)

        warnings.showwarning = show
        self._ends.callback(setattr, warnings, "showwarning", shown)

    def write(self, text: str) -> None:
        """Add lines; a full disk stops the log, not the run."""
        try:
            append_lines(self._path, text)
        except OSError as error:
            self._path = Path("/dev/null")
            self._console.print(f"WARNING: log.txt has no more lines from here on ({error})", markup=False)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich for everything printed."""
        for renderable in renderables:
            if not isinstance(renderable, Control | NewLine | ForeignLine):
                self.write(_plain(renderable))
        return renderables


def _plain(renderable: ConsoleRenderable) -> str:
    if isinstance(renderable, Text | FoldedLine):
        return renderable.plain
    out = io.StringIO()
    Console(file=out, width=_WIDTH, color_system=None, force_terminal=False, _environ={}).print(renderable)
    return out.getvalue()


class _Handler(logging.Handler):
    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._last: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record is self._last:  # a library's logger may pass on to the root, too
            return
        self._last = record
        self._log.write(f"{record.levelname} {record.name}: {record.getMessage()}")
