"""Root file system of a confined program: what it may read, read-only, a scratch folder, four devices, and nothing else.

No /proc and no /sys: containers cannot always mount them, and a program under test needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from openrs_ray.sandbox.inside.kernel import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    restrict_mounts,
    unmount,
)

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_STAGE, _OLD = "/tmp", "/.old"
_SCRATCH_FILES = 4096


def enter_new_root(readable: Iterable[str], scratch: str, scratch_bytes: int, owner: tuple[int, int]) -> None:
    """Make it the root of this process's mount namespace. OSError where the system forbids it."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", _STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    os.mkdir(_STAGE + _OLD)
    pivot_root(_STAGE, _STAGE + _OLD)
    os.chdir("/")
    os.makedirs(scratch)
    options = f"size={scratch_bytes},nr_inodes={_SCRATCH_FILES},mode=0700"
    mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chown(scratch, *owner)
    for path in outermost(readable):
        _show(path, MS_RDONLY | MS_NOSUID | MS_NODEV)
    for path in DEVICES:
        _show(path, MS_NOSUID | MS_NOEXEC)
    unmount(_OLD)
    os.rmdir(_OLD)
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def outermost(paths: Iterable[str]) -> list[str]:
    """Paths that lie in no other, in order."""
    kept = list[str]()
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return kept


def _show(path: str, flags: int) -> None:
    """Mount a path of the old root at its place in the new one; a symbolic link is made anew."""
    source = _OLD + path
    if not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), path)
        return
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.close(os.open(path, os.O_CREAT, 0o444))
    mount(source, path, None, MS_BIND | MS_REC)
    restrict_mounts(path, flags)
