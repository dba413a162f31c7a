"""Finds the line of an engine's log that says why it died: vLLM's exceptions only point to it."""

import re
from collections.abc import Iterator
from itertools import pairwise

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"\((\S+) pid=\d+\) ?")
_STAMP = re.compile(r"(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception)(?::|$)")
_NATIVE = re.compile(r"Fatal Python error: |\s+what\(\):  |\*\*\* SIG[A-Z]+ received")
_SAYS_NOTHING = ("EngineDeadError", "ngine core init", "WorkerProc init", "root cause", "stack trace")
_OUTER = "MainProcess"
_LONGEST = 300


def last_error(log: str) -> str | None:
    """Example: "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0" """
    found = None
    for line, following in pairwise([*_own_lines(log), ""]):
        if (_EXCEPTION.match(line) or _NATIVE.match(line)) and not any(part in line for part in _SAYS_NOTHING):
            found = line.strip()
            if re.search(r"\d validation errors? for \w+$", found):  # pydantic: the next line says which
                found = f"{found}: {following.strip()}"
    return found and found[:_LONGEST].rstrip(".")


def _own_lines(log: str) -> Iterator[str]:
    """Lines of the engine's processes, without loggers' prefixes."""
    for line in _COLOUR.sub("", log).splitlines():
        process = _PROCESS.match(line)
        if process is None:
            yield line
        elif not process[1].startswith(_OUTER):
            line = line[process.end() :]
            stamp = _STAMP.match(line)
            yield line[stamp.end() :] if stamp else line


def same_error(one: str, other: str) -> bool:
    """True if two lines differ in numbers and addresses at most."""
    return _numberless(one) == _numberless(other)


def _numberless(line: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", line)
