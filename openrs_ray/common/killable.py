"""Work on foreign content in a child process, because native code cannot be interrupted or bounded within its own.

The child is forked, to start in milliseconds; it leaves without cleaning up, because other threads may have held locks.
"""

import gc
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from openrs_ray.common.foreign import why
from openrs_ray.common.parent import end_with_parent

T = TypeVar("T")

DEADLINE_S = 60.0
"""For one result."""
MEMORY_BYTES = 4 << 30


class Failed(Exception):
    """The work failed, was too slow or took too much memory."""


def in_child(work: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Yield the results of `work`, each within `DEADLINE_S`. Raises Failed."""
    context = multiprocessing.get_context("fork")
    results, end = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, end, os.getpid()))
    child.start()
    end.close()
    try:
        while True:
            if not results.poll(DEADLINE_S):
                raise Failed(f"it did not end within {DEADLINE_S:g} s")
            try:
                kind, value = results.recv()
            except EOFError:
                child.join()
                raise Failed(_death(child.exitcode)) from None
            if kind == "end":
                return
            if kind == "error":
                raise Failed(value)
            yield value
    finally:
        child.kill()
        child.join()
        results.close()


def _death(code: int | None) -> str:
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"its process died ({name}), of too little memory or of a mistake in a library"


def _child(work: Callable[[], Iterator[T]], results: Connection, parent: int) -> None:
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    gc.freeze()  # what the parent owns is not this process's to clean up
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the sentence says it
        os.dup2(silence, stream)
    _limit_memory()
    try:
        for value in work():
            results.send(("value", value))
        results.send(("end", None))
    except BaseException as error:  # a panic of a library in Rust is no Exception
        with suppress(OSError):
            results.send(("error", why(error)))
    os._exit(0)


def _limit_memory() -> None:
    """Allow `MEMORY_BYTES` more data than the parent had; the address space would count what threads only reserve."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
