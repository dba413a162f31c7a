"""File rights by Landlock (Linux 5.13 and later), which needs neither root nor namespaces.

Layouts: linux/landlock.h. Version 4 adds TCP, version 6 abstract sockets and signals to processes outside.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from openrs_ray.sandbox.inside.kernel import checked, system_call

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION, _RULE_BENEATH = 1, 1
_EXECUTE, _WRITE, _READ, _READ_FOLDER = 1, 2, 4, 8
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TRUNCATE = 1 << 14
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_TCP, _SCOPES = 0b11, 0b11


def version() -> int:
    """0 where the kernel has none."""
    return max(0, system_call(_CREATE, None, 0, _ASK_VERSION))


def restrict_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Allow reading and running below `readable`, everything but running below `writable`, nothing elsewhere."""
    found = version()
    every = (1 << _RIGHTS_BY_VERSION.get(found, 16)) - 1
    attributes = struct.pack("=QQQ", every, _TCP, _SCOPES)[: 8 if found < 4 else 16 if found < 6 else 24]
    rules = checked(system_call(_CREATE, attributes, len(attributes), 0), "landlock_create_ruleset")
    for path in readable:
        _allow(rules, path, every & (_EXECUTE | _READ | _READ_FOLDER))
    for path in writable:
        _allow(rules, path, every & ~_EXECUTE)
    checked(system_call(_RESTRICT, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= _OF_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
    checked(system_call(_ADD, rules, _RULE_BENEATH, rule, 0), f"landlock_add_rule for {path}")
    os.close(place)
