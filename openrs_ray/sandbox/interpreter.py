"""Python of confined programs: this interpreter's standard library, and the packages installed beside it."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache")


@cache
def executable() -> str:
    return os.path.realpath(sys.executable)


@cache
def readable() -> list[str]:
    """Folders and files that a program needs. No home, no project, no data."""
    own = [str(Path(executable()).parent.parent), sys.base_prefix, sys.base_exec_prefix, *_packages(), *_libraries()]
    return [*_SYSTEM, *(path for path in map(os.path.realpath, own) if path != "/")]


@cache
def environment(scratch: str) -> dict[str, str]:
    """Nothing of the caller's, but where the system's libraries lie."""
    paths = [*(path for path in sys.path if path.startswith(sys.base_prefix) and os.path.isdir(path)), *_packages()]
    libraries = {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if _libraries() else {}
    return libraries | {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONHASHSEED": "0",  # the order of a set is the same each time
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def arguments() -> list[str]:
    """No site, no user's packages, no byte code, no buffering of output that a kill would lose."""
    return [executable(), "-S", "-s", "-B", "-u"]


@cache
def _packages() -> list[str]:
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(os.path.realpath(paths[name]) for name in ("purelib", "platlib")))


@cache
def _libraries() -> list[str]:
    given = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [path for path in given if os.path.isabs(path) and os.path.isdir(path) and os.path.realpath(path) != "/"]
