"""Reads the log files of an actor's process and of those that it starts."""

import os
import socket
from pathlib import Path

from openrs_ray.common.last_error import last_error

_MOST_BYTES = 1 << 20


class OwnLog:
    """Standard output and error of this process, from now on."""

    def __init__(self) -> None:
        files = (path for path in map(_file_behind, (1, 2)) if path is not None)
        self._ends = {path: path.stat().st_size for path in files}

    def last_error(self) -> tuple[str | None, str]:
        """The engine's last error, if any, and a remark with the log's path."""
        for path in self._ends:
            if error := last_error(self._since(path)):
                return error, _hint(path)
        return None, next(map(_hint, self._ends), "")

    def newest(self) -> str:
        """Its last part."""
        return "".join(map(self._since, self._ends))

    def _since(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._ends[path], size - _MOST_BYTES))
                return file.read().decode(errors="replace")
        except OSError:  # somebody has removed it
            return ""


def _file_behind(descriptor: int) -> Path | None:
    try:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        return None
    return path if path.is_file() else None


def _hint(path: Path) -> str:
    return f" (its log: {path} on {socket.gethostname()})"
