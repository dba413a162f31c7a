"""The log files of the actor that asks: where Ray has its process, and those it starts, write."""

import os
import socket
import stat
from pathlib import Path

from openrs_ray.last_error import last_error

_MOST_BYTES = 1 << 20


class OwnLog:
    """Standard output (where vLLM's engine processes log to) and standard error, from when this was made on."""

    def __init__(self) -> None:
        self._ends = {path: path.stat().st_size for path in map(_file_behind, (1, 2)) if path is not None}

    def last_error(self) -> tuple[str | None, str]:
        """The last error that an engine's process wrote, if any, and a remark that says where the log is ("" if nowhere)."""
        for path in self._ends:
            if error := last_error(self._since(path)):
                return error, _hint(path)
        return None, next(map(_hint, self._ends), "")

    def _since(self, path: Path) -> str:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._ends[path], size - _MOST_BYTES))
            return file.read().decode(errors="replace")


def _file_behind(descriptor: int) -> Path | None:
    """None where it is a terminal, a pipe or closed."""
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        return path.resolve() if stat.S_ISREG(path.stat().st_mode) else None
    except OSError:
        return None


def _hint(path: Path) -> str:
    return f" (its log: {path} on {socket.gethostname()})"
