"""Description of one program to confine, as the launcher gets it.

Imports are few in this folder: a launcher starts for every program. Hence no dataclass, JSON or pathlib.
"""

from __future__ import annotations

import marshal
from typing import Literal, NamedTuple

Route = Literal["privileged", "user", "other_user", "process"]
"""Ways to confine, strongest first: namespaces made as root, namespaces in an own user namespace, one process of another
user, one process of the same user."""

MAIN = "main.py"
"""Name of the program's file in its scratch folder."""


class Job(NamedTuple):
    """One program, its files and limits."""

    source: str
    files: dict[str, str]
    arguments: list[str]
    """Of the interpreter, its path first; the program's file is appended."""
    environment: dict[str, str]
    readable: list[str]
    """Folders and files the program can read."""
    scratch: str
    """Path of the scratch folder, in namespaces that of a file system of its own."""
    channel: list[int]
    """Descriptors that become 3 and 4 of the program; none, or a reading and a writing one."""
    route: Route
    walls: list[str] | None
    """Walls that must stand; None takes what the machine gives."""
    cpu_s: int
    memory_bytes: int
    processes: int
    scratch_bytes: int

    @property
    def has_namespaces(self) -> bool:
        return self.route in ("privileged", "user")

    def packed(self) -> bytes:
        return marshal.dumps(tuple(self))

    @classmethod
    def unpacked(cls, content: bytes) -> Job:
        """For a launcher, of the same Python as its caller."""
        return cls(*marshal.loads(content))
