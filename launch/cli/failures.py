"""Files for the tracebacks of unforeseen errors; the terminal shows one sentence."""

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from openrs_ray.common.foreign import why_with_kind

_run_folder: list[Path] = []


def belongs_to(run_folder: Path) -> None:
    """Write tracebacks into this folder, once it exists."""
    _run_folder[:] = [run_folder]


def unforeseen(error: BaseException) -> str:
    """The sentence about an error."""
    trace = "".join(traceback.format_exception(error))
    written = _write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{sys.orig_argv}\n\n{trace}")
    where = f"the traceback is in {written}" if written else "no folder had room for its traceback"
    return f"{why_with_kind(error)} ({_place(error)}); {where}"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "place unknown"


def _write(text: str) -> Path | None:
    name = f"error-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    for folder in _folders():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                path.unlink()  # a part of it is no help
        else:
            return path
    return None


def _folders() -> Iterator[Path]:
    yield from (folder for folder in _run_folder if folder.is_dir())
    with suppress(RuntimeError):  # ~ of a user without a home
        yield Path(os.environ.get("OPENRS_RUNS", "~/openrs_runs")).expanduser().absolute() / "errors"
    with suppress(OSError):
        yield Path(tempfile.gettempdir()) / "openrs_errors"
