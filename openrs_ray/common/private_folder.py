"""Private folders for sockets and meeting points: only their user can open them, and they go with their process."""

import atexit
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path
from uuid import uuid4

from openrs_ray.errors import RunError

MARK = "OPENRS_ACTOR"
"""Environment variable of an actor and its children."""
_LONGEST = 16
"""A socket's path has at most 107 bytes, of which Ray and we append up to 91."""


def temporary_root() -> str:
    """The temporary folder, or /tmp where its name is too long for sockets."""
    root = tempfile.gettempdir()
    return root if len(os.fsencode(root)) <= _LONGEST else "/tmp"


def new_private_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"openrs-{name}-", dir=temporary_root()))


def folder_of(mark: str) -> Path:
    return Path(temporary_root(), f"openrs-{mark[:16]}")


def private_folder() -> Path:
    """This process's folder. RunError if somebody else made it or can open it."""
    folder = folder_of(os.environ.get(MARK) or _own_mark())
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISDIR(found.st_mode):
        raise RunError(f"{folder} is not a folder that only this user can open: somebody else has made it; remove it")
    return folder


@cache
def _own_mark() -> str:
    mark = uuid4().hex
    atexit.register(shutil.rmtree, folder_of(mark), ignore_errors=True)
    return mark
