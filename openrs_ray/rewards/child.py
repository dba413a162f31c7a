"""Main of a checking process: receives a check, then judges items one by one on the main thread.

`python -m openrs_ray.rewards.child DESCRIPTOR MEMORY_BYTES PARENT` ends with its pipe and dies with its parent. It answers
with (kind, content): "ready" or "unready" once, then "done", "raised" or "no_memory" for each item, and between those the
"part" that runs and what it "printed".
"""

import os
import pickle
import resource
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from openrs_ray.common.parent import end_with_parent
from openrs_ray.common.telling import tell_through

_LONGEST_REASON = 500


def main(descriptor: int, memory_bytes: int, parent: int) -> None:
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # which died before the line above
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.set_inheritable(descriptor, False)
    line = _Line(Connection(descriptor))
    tell_through(line.tell)
    try:
        check = _started(line)
        while check is not None:
            line.send(_answer(check, line.receive()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Line:
    """The pipe to the parent, for all threads of this process and for no fork of it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self.receive = pipe.recv_bytes

    def send(self, pickled: bytes) -> None:
        if os.getpid() != self._owner:  # a check has forked, and the fork came back
            os._exit(1)
        with self._lock:
            self._pipe.send_bytes(pickled)

    def tell(self, kind: str, text: str) -> None:
        if os.getpid() == self._owner:
            self.send(pickle.dumps((kind, text)))


def _started(line: _Line) -> Callable[[Any], Any] | None:
    """The check, ready to judge; None when it cannot be loaded."""
    try:
        check, warm_up, prepare = pickle.loads(line.receive())
        if prepare is not None:
            prepare()
        for item in warm_up:
            check(item)
    except Exception as error:
        line.tell("unready", _reason(error))
        return None
    line.tell("ready", "")
    return check  # type: ignore[no-any-return]


def _answer(check: Callable[[Any], Any], pickled_item: bytes) -> bytes:
    try:
        return pickle.dumps(("done", check(pickle.loads(pickled_item))))
    except MemoryError as error:  # of this item, or because earlier ones kept theirs
        return pickle.dumps(("no_memory", _reason(error)))
    except Exception as error:  # becomes the item's result: one bad item must not end the process
        return pickle.dumps(("raised", _reason(error)))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:_LONGEST_REASON]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
