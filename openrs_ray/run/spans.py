"""Spans: named intervals of a run's work, in `attempts/NNN/trace/PROCESS.jsonl`, one Chrome trace event per line.

A thread appends finished spans twice a second: no caller waits for the disk. Recording is off until `recording` or an actor's
environment (`handed_on`) turns it on. Its errors never reach the run. A follower is told of this process's spans as they happen.
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
from typing import Any, Protocol, TypeVar

FOLDER = "trace"
_FOLDER, _PROCESS = "OPENRS_TRACE", "OPENRS_TRACE_PROCESS"
_WRITE_S = 0.5
_MOST_BYTES = 8 << 20
"""A full file replaces PROCESS.old.jsonl."""

F = TypeVar("F", bound=Callable[..., Any])
Span = tuple[str, int, int, dict[str, Any]]
"""Name, start on the wall clock and duration in ns, attributes."""


class Follower(Protocol):
    """Told of spans in the thread that they are in; must be quick. One that raises is told of no more."""

    def began(self, name: str, attributes: dict[str, Any]) -> None: ...

    def ended(self, name: str, attributes: dict[str, Any]) -> None:
        """`attributes` has "error" where the block failed."""


_followers: list[Follower] = []


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    _followers.append(follower)
    try:
        yield
    finally:
        if follower in _followers:
            _followers.remove(follower)


def _tell(word: Callable[[Follower], None]) -> None:
    for follower in [*_followers]:
        try:
            word(follower)
        except Exception:
            logging.getLogger(__name__).warning("A follower of spans failed and is told of no more", exc_info=True)
            _followers.remove(follower)


class _Recorder:
    def __init__(self, folder: Path, process: str) -> None:
        self.folder, self._process = folder, process
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
            with suppress(RuntimeError):  # no more threads: `write` comes when the process ends
                timer.start()

    def write(self) -> None:
        with self._lock:
            spans, self._waiting = self._waiting, []
        if not spans:
            return
        path = self.folder / f"{self._process}.jsonl"
        try:
            self.folder.mkdir(exist_ok=True)
            if path.exists() and path.stat().st_size > _MOST_BYTES:
                path.replace(path.with_suffix(".old.jsonl"))
            with path.open("ab", buffering=0) as file:
                file.write(("\n" + "".join(map(_line, spans))).encode())  # a line of its own, after a torn one too
        except (OSError, ValueError) as error:
            if not self._warned:
                logging.getLogger(__name__).warning("Spans of %s are lost: %s", self._process, error)
            self._warned = True


def _line(span: Span) -> str:
    name, start, duration, attributes = span
    event = {"name": name, "ph": "X", "ts": start / 1e3, "dur": duration / 1e3, "pid": os.getpid(), "args": attributes}
    return json.dumps(event, default=str, separators=(",", ":")) + "\n"


_recorder = _Recorder(Path(os.environ[_FOLDER]), os.environ[_PROCESS]) if _FOLDER in os.environ else None


@contextmanager
def recording(folder: Path, process: str) -> Iterator[None]:
    global _recorder
    _recorder = _Recorder(folder, process)
    try:
        yield
    finally:
        _recorder.write()
        _recorder = None


def handed_on(process: str) -> dict[str, str]:
    """Environment for an actor and its children; empty when nothing is recorded."""
    return {_FOLDER: str(_recorder.folder), _PROCESS: process} if _recorder else {}


@atexit.register
def _write_the_rest() -> None:
    if _recorder:
        _recorder.write()


def add_span(name: str, start_ns: int, duration_ns: int, **attributes: Any) -> None:
    """Record an interval measured elsewhere; `start_ns` as `time.time_ns()` has it."""
    if _recorder:
        _recorder.add((name, start_ns, duration_ns, attributes))


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[dict[str, Any]]:
    """Record a block, which may add attributes.

    with span("take", step=7) as attributes:
        attributes["positions"] = [28, 29]
    """
    start, began = time.time_ns(), time.perf_counter_ns()
    _tell(lambda follower: follower.began(name, attributes))
    try:
        yield attributes
    except BaseException as error:
        attributes["error"] = type(error).__name__
        raise
    finally:
        if _recorder:
            _recorder.add((name, start, time.perf_counter_ns() - began, attributes))
        _tell(lambda follower: follower.ended(name, attributes))


def traced(name: str, *shown: str) -> Callable[[F], F]:
    """Decorator: records every call, with the arguments of these names."""

    def decorate(function: F) -> F:
        names = list(inspect.signature(function).parameters)

        def attributes(arguments: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
            given = dict(zip(names, arguments, strict=False)) | more
            return {argument: given[argument] for argument in shown if argument in given}

        @wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            with span(name, **attributes(arguments, more)):
                return function(*arguments, **more)

        @wraps(function)
        async def call_async(*arguments: Any, **more: Any) -> Any:
            with span(name, **attributes(arguments, more)):
                return await function(*arguments, **more)

        return call_async if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]

    return decorate
