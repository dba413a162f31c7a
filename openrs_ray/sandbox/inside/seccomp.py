"""Filter of system calls: a program for the kernel's BPF machine that allows what `syscalls` names.

Source: Documentation/userspace-api/seccomp_filter.rst. Calls are refused with an error, which Python shows as OSError; a
call by another architecture's rules (32 bits, x32) ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from openrs_ray.sandbox.inside.kernel import PR_SET_SECCOMP, prctl
from openrs_ray.sandbox.inside.syscalls import CONDITIONAL, PLAIN

Test = tuple[int, int, int]
"""Number of an argument, mask, and the value of its low 32 bits under that mask."""
Rule = list[list[Test]]
"""Alternatives, of which one must hold with all its tests."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
_FIRST_NEW_CALL = 424
"""From here on a refused call says that it does not exist, for libraries then fall back to an older one."""
_FILTER_MODE = 2

_THREAD, _NEW_NAMESPACES = 0x00010000, 0x7E020000
_ANY = 0xFFFFFFFF
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_FCNTL = (*range(8), *range(36, 39), 1030, 1032)  # not F_SETOWN, which sends signals, and F_SETPIPE_SZ
_PRCTL = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_AF_UNIX, _STREAM, _TYPE_MASK = 1, 1, 0xF


class Unsupported(OSError):
    """No filter for this processor."""


def install(own_pid: int, processes: bool, threads: bool, signals: bool) -> None:
    """Restrict this process for good; `signals` allows them to other processes. OSError where the kernel has no seccomp."""
    program = assembled(rules(own_pid, processes, threads, signals), os.uname().machine)
    instructions = ctypes.create_string_buffer(program)
    packed = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    description = ctypes.create_string_buffer(packed)
    prctl(PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(description))


def rules(own_pid: int, processes: bool, threads: bool, signals: bool) -> dict[str, Rule]:
    """Conditions of the calls that have some; a call without alternatives is refused."""
    fork: Rule = [[(0, _NEW_NAMESPACES, 0)]]
    thread: Rule = [[(0, _THREAD | _NEW_NAMESPACES, _THREAD)]]
    own: Rule = [[(0, _ANY, own_pid)]]
    return {
        "clone": fork if processes else thread if threads else [],
        "fork": [[]] if processes else [],
        "vfork": [[]] if processes else [],
        "kill": [[]] if signals else own,
        "tgkill": [[]] if signals else own,
        "prctl": [[(0, _ANY, option)] for option in _PRCTL],
        "ioctl": [[(1, _ANY, request)] for request in _IOCTL],
        "fcntl": [[(1, _ANY, command)] for command in _FCNTL],
        "prlimit64": [[(0, _ANY, 0)]],
        "socketpair": [[(0, _ANY, _AF_UNIX), (1, _TYPE_MASK, _STREAM)]],
    }


def assembled(conditions: dict[str, Rule], machine: str) -> bytes:
    """Instructions of 8 bytes each. Unsupported for an unknown processor."""
    if machine not in _ARCHITECTURES:
        raise Unsupported(f"system calls of {machine} are not known")
    column, architecture = _ARCHITECTURES[machine]
    code = [_step(_LOAD, _ARCHITECTURE_AT), _step(_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL)]
    code += [_step(_LOAD, _NUMBER_AT), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]
    code += _calls((numbers[column], [[]]) for numbers in PLAIN.values())
    code += _calls((numbers[column], conditions.get(name)) for name, numbers in CONDITIONAL.items())
    code += [_step(_AT_LEAST, _FIRST_NEW_CALL, 0, 1), _refused(errno.ENOSYS), _refused(errno.EPERM)]
    return b"".join(code)


def _calls(rules: Iterable[tuple[int | None, Rule | None]]) -> list[bytes]:
    """Blocks of the calls with a rule; each leaves the call's number loaded for the next one."""
    code = list[bytes]()
    for number, rule in rules:
        if number is not None and rule is not None:
            block = [_step(_RETURN, _ALLOW)] if rule == [[]] else _conditional(rule)
            code += [_step(_EQUAL, number, 0, len(block)), *block]
    return code


def _conditional(rule: Rule) -> list[bytes]:
    block = list[bytes]()
    for alternative in rule:
        block += _alternative(alternative)
    return [*block, _refused(errno.EPERM)]


def _alternative(tests: list[Test]) -> list[bytes]:
    """Three instructions for each test, and the one that allows; a test that fails jumps behind it."""
    code = list[bytes]()
    for place, (argument, mask, value) in enumerate(tests):
        rest = 3 * (len(tests) - place - 1) + 1
        load = _step(_LOAD, _ARGUMENTS_AT + 8 * argument)
        code += [load, _step(_AND, mask), _step(_EQUAL, value, 0, rest)]
    return [*code, _step(_RETURN, _ALLOW)]


def _refused(number: int) -> bytes:
    return _step(_RETURN, _ERROR | number)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
