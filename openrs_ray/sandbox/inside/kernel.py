"""Linux calls that Python 3.11 does not offer. Each raises OSError."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
PR_SET_CHILD_SUBREAPER, PR_SET_SECCOMP = 36, 22

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPABILITY_VERSION_3 = 0x20080522


def checked(result: int, name: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    first, second = (None if text is None else os.fsencode(text) for text in (source, kind))
    result = LIBC.mount(first, os.fsencode(target), second, ctypes.c_ulong(flags), options.encode())
    checked(result, f"mount of {target}")


def unmount(target: str) -> None:
    checked(LIBC.umount2(os.fsencode(target), MNT_DETACH), f"umount of {target}")


def pivot_root(new: str, old: str) -> None:
    checked(system_call(_number(_PIVOT_ROOT), os.fsencode(new), os.fsencode(old)), "pivot_root")


def restrict_mounts(target: str, flags: int) -> None:
    """Add flags to a mount and all below it; before Linux 5.12 to that mount alone."""
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)  # MOUNT_ATTR_* have the values of MS_* for these flags
    arguments = (_AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if system_call(_MOUNT_SETATTR, *arguments) == -1:
        kept = os.statvfs(target).f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount(None, target, None, MS_REMOUNT | MS_BIND | kept | flags)


def prctl(option: int, value: int, *more: int) -> None:
    numbers = [ctypes.c_ulong(number) for number in (value, *more, *[0] * (3 - len(more)))]
    checked(LIBC.prctl(option, *numbers), f"prctl({option})")


def drop_capabilities() -> None:
    """Give up all capabilities, and those that a program could bring."""
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == -1:
            break  # past the last one, or without the right to: it has none to lose then
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(system_call(_number(_CAPSET), ctypes.byref(header), (ctypes.c_uint32 * 6)()), "capset")


def system_call(number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(LIBC.syscall(ctypes.c_long(number), *wide))


def _number(by_machine: dict[str, int]) -> int:
    machine = os.uname().machine
    if machine not in by_machine:
        raise OSError(f"this call's number on {machine} is not known")
    return by_machine[machine]


LIBC.syscall.restype = ctypes.c_long
