"""Spans: named intervals of a run's work, recorded by every process of an attempt in `attempts/NNN/trace/PROCESS.jsonl`.

A line is one event of the Chrome trace format, in microseconds of the wall clock. A thread appends what has ended twice a second:
a kill loses about that much, and no caller waits for the disk. Recording is off until `recording`, or the environment that an
actor was given (`handed_on`), turns it on. Its errors never reach the run.
"""

import atexit
import inspect
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

FOLDER = "trace"
_FOLDER, _PROCESS = "OPENRS_TRACE", "OPENRS_TRACE_PROCESS"
_WRITE_S = 0.5
_MOST_BYTES = 8 << 20
"""Of one file. A full one becomes PROCESS.old.jsonl, in the place of the one before: the newest spans are kept."""

F = TypeVar("F", bound=Callable[..., Any])
Span = tuple[str, int, int, dict[str, Any]]
"""Name, start on the wall clock and duration in ns, attributes."""


class _Recorder:
    """Spans that wait to be written to one process's file."""

    def __init__(self, folder: Path, process: str) -> None:
        self.folder, self.process = folder, process
        self._file = folder / f"{process}.jsonl"
        self._waiting: list[Span] = []
        self._lock = threading.Lock()
        self._warned = False

    def add(self, span: Span) -> None:
        with self._lock:
            self._waiting.append(span)
            first = len(self._waiting) == 1
        if first:
            timer = threading.Timer(_WRITE_S, self.write)
            timer.daemon = True
            with suppress(RuntimeError):  # no more threads: what waits is written when the process ends
                timer.start()

    def write(self) -> None:
        with self._lock:
            spans, self._waiting = self._waiting, []
        if not spans:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            if self._file.exists() and self._file.stat().st_size > _MOST_BYTES:
                self._file.replace(self._file.with_suffix(".old.jsonl"))
            with self._file.open("ab", buffering=0) as file:
                file.write(("\n" + "".join(map(_line, spans))).encode())  # a line of its own, after a torn one too
        except (OSError, ValueError) as error:
            if not self._warned:
                logging.getLogger(__name__).warning("Spans of %s are lost: %s", self.process, error)
            self._warned = True


_recorder: _Recorder | None = None
if _FOLDER in os.environ:
    _recorder = _Recorder(Path(os.environ[_FOLDER]), os.environ[_PROCESS])


def _line(span: Span) -> str:
    name, start, duration, attributes = span
    event = {"name": name, "ph": "X", "ts": start / 1e3, "dur": duration / 1e3, "pid": os.getpid(), "args": attributes}
    return json.dumps(event, default=str, separators=(",", ":")) + "\n"


@contextmanager
def recording(folder: Path, process: str) -> Iterator[None]:
    """Record this process's spans in a folder until the block ends."""
    global _recorder
    _recorder = _Recorder(folder, process)
    try:
        yield
    finally:
        _recorder.write()
        _recorder = None


def handed_on(process: str) -> dict[str, str]:
    """Environment that makes an actor, and what it starts, record under this name; empty when this process records nothing."""
    return {_FOLDER: str(_recorder.folder), _PROCESS: process} if _recorder else {}


@atexit.register
def _write_the_rest() -> None:
    if _recorder:
        _recorder.write()


def add_span(name: str, start_ns: int, duration_ns: int, **attributes: Any) -> None:
    """Record an interval that was measured elsewhere; `start_ns` as `time.time_ns()` has it."""
    if _recorder:
        _recorder.add((name, start_ns, duration_ns, attributes))


class span:
    """Records how long a block takes. It may add attributes as it goes.

    with span("take", step=7) as attributes:
        attributes["positions"] = [28, 29]
    """

    __slots__ = ("_attributes", "_began", "_name", "_start")

    def __init__(self, name: str, **attributes: Any) -> None:
        self._name, self._attributes = name, attributes

    def __enter__(self) -> dict[str, Any]:
        self._start, self._began = time.time_ns(), time.perf_counter_ns()
        return self._attributes

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if _recorder:
            if kind is not None:
                self._attributes["error"] = kind.__name__
            _recorder.add((self._name, self._start, time.perf_counter_ns() - self._began, self._attributes))


def traced(name: str, *shown: str) -> Callable[[F], F]:
    """Decorator: every call of the (asynchronous) function is a span, with the arguments of these names as attributes."""

    def decorate(function: F) -> F:
        names = list(inspect.signature(function).parameters)

        def span_of(arguments: tuple[Any, ...], more: dict[str, Any]) -> span:
            given = dict(zip(names, arguments, strict=False)) | more
            return span(name, **{argument: given[argument] for argument in shown if argument in given})

        @wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            with span_of(arguments, more):
                return function(*arguments, **more)

        @wraps(function)
        async def call_async(*arguments: Any, **more: Any) -> Any:
            with span_of(arguments, more):
                return await function(*arguments, **more)

        return call_async if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]

    return decorate
