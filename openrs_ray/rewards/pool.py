"""Runs checks in subprocesses that a deadline can end: a check may hang in C, fill the memory or crash.

Past its deadline of CPU time an item is judged TIMEOUT; one whose process dies is tried in a fresh one, then judged ERROR.
An item that raises MemoryError ends its process, and is tried in a fresh one if others may have left no room.
"""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from openrs_ray.errors import RunError
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.process import CheckProcess, OutOfMemory, Raised

CHECKS_PER_PROCESS = 5000
"""SymPy's caches grow: a process is renewed after so many checks when nothing waits, else after twice as many."""
_STARTS = 3  # Failed starts in a row before the pool gives up
_ATTEMPTS = 2  # Processes that may die of an item

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class Counts:
    checks: int = 0
    timeouts: int = 0
    errors: int = 0
    replaced: int = 0
    """Processes that died or were killed."""


@dataclass(slots=True)
class _Job(Generic[Result]):
    pickled_item: bytes
    future: Future[Result]
    deadline_s: float
    deaths: int = 0


class _State(Enum):
    """State of a process after an item: goes on, is full and ends, died or was killed."""

    USABLE = auto()
    FULL = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class _Ended(Generic[Result]):
    result: Result
    status: Status | None
    """The result's own where the check ended, or that of its failure."""


def failed_verdict(status: Status, detail: str, seconds: float) -> Verdict:
    return Verdict(status, {}, None, seconds=seconds, detail=detail)


class CheckPool(Generic[Item, Result]):
    r"""Applies `check` to items in subprocesses; for any thread and asyncio.

    A fresh interpreter with this `sys.path` must be able to unpickle `check` and the items. `prepare` and then `warm_up` come
    first in every process, without deadline. The end of `with` kills the processes.

    Example:
        with CheckPool(Judge({"accuracy": 1.0}, "boxed"), processes=2, deadline_s=5.0, memory_gib=2.0) as pool:
            verdict = pool.submit(JudgeItem(r"\boxed{4}", 5, "stop", ("4",))).result()
    """

    def __init__(
        self,
        check: Callable[[Item], Result],
        processes: int,
        deadline_s: float,
        memory_gib: float,
        warm_up: Sequence[Item] = (),
        *,
        prepare: Callable[[], None] | None = None,
        own_deadline_s: Callable[[Item], float] | None = None,
        failed: Callable[[Status, str, float], Any] = failed_verdict,
        printed: Callable[[str], None] | None = None,
    ) -> None:
        """`failed` makes the result of an item that timed out, died or raised, of its status, the reason and its seconds.

        `own_deadline_s`: seconds that an item needs beyond `deadline_s`.
        `printed` gets the lines that parts of a check print (`openrs_ray.common.telling`), from any thread.
        """
        self._pickled_start = pickle.dumps((check, tuple(warm_up), prepare))
        self._deadline_s = deadline_s
        self._own_deadline_s = own_deadline_s
        self._memory_gib = memory_gib
        self._failed = failed
        self._printed = printed
        self._waiting: queue.SimpleQueue[_Job[Result] | None] = queue.SimpleQueue()
        self._counts = Counts()
        self._running: dict[int, CheckProcess] = {}
        self._closed: RunError | None = None
        self._lock = threading.Lock()
        self._slots = [threading.Thread(target=self._serve, args=(slot,), daemon=True) for slot in range(processes)]
        for thread in self._slots:
            thread.start()

    def submit(self, item: Item) -> Future[Result]:
        """RunError, also of the future: the pool is closed or cannot start a process."""
        own_s = self._own_deadline_s(item) if self._own_deadline_s else 0.0
        job: _Job[Result] = _Job(pickle.dumps(item), Future(), self._deadline_s + own_s)
        with self._lock:
            if self._closed:
                raise self._closed
            self._waiting.put(job)
        return job.future

    async def judge_many(self, items: Sequence[Item]) -> list[Result]:
        """Results in the items' order."""
        return list(await asyncio.gather(*(asyncio.wrap_future(self.submit(item)) for item in items)))

    def counts(self) -> Counts:
        with self._lock:
            return replace(self._counts)

    def process_ids(self) -> list[int]:
        with self._lock:
            return [process.pid for process in self._running.values()]

    def close(self) -> None:
        """Waiting items fail with RunError. May be called twice."""
        self._stop(RunError("The pool of checking processes was closed."))
        for thread in self._slots:
            thread.join()

    def __enter__(self) -> CheckPool[Item, Result]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _stop(self, reason: RunError) -> None:
        with self._lock:
            self._closed = self._closed or reason
            for process in self._running.values():
                process.kill()
        while (job := self._take_waiting()) is not None:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(self._closed)
        for _ in self._slots:
            self._waiting.put(None)

    def _take_waiting(self) -> _Job[Result] | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _serve(self, slot: int) -> None:
        """Thread of one slot: process after process, item after item."""
        process: CheckProcess | None = None
        job: _Job[Result] | None = None
        while not self._closed:
            process = process or self._start(slot)
            job = job or self._next_job()
            if process is None or job is None:
                continue
            ended, state = self._attempt(process, job)
            limit = CHECKS_PER_PROCESS if self._waiting.empty() else 2 * CHECKS_PER_PROCESS
            if state is not _State.USABLE or process.checks >= limit:
                self._end(slot, process, replaced=state is _State.LOST)
                process = None
            if ended is None:
                continue  # the same item again, in a fresh process
            self._count(ended)
            job.future.set_result(ended.result)
            job = None
        if process is not None:
            self._end(slot, process, replaced=False)
        if job is not None:
            job.future.set_exception(self._closed)

    def _next_job(self) -> _Job[Result] | None:
        """None if the item was cancelled or the pool is closing."""
        job = self._waiting.get()
        return job if job is not None and job.future.set_running_or_notify_cancel() else None

    def _attempt(self, process: CheckProcess, job: _Job[Result]) -> tuple[_Ended[Result] | None, _State]:
        """The end, or None to try again; and the state of the process."""
        start = time.monotonic()

        def failed(status: Status, detail: str) -> _Ended[Result]:
            return _Ended(self._failed(status, detail, time.monotonic() - start), status)

        try:
            result = process.check(job.pickled_item, job.deadline_s)
            return _Ended(result, getattr(result, "status", None)), _State.USABLE
        except Raised as error:
            return failed(Status.ERROR, str(error)), _State.USABLE
        except OutOfMemory as error:
            fresh = process.checks == 1
            detail = f"{error} at the limit of {self._memory_gib:g} GiB{process.where}"
            return failed(Status.ERROR, detail) if fresh else None, _State.FULL
        except TimeoutError:
            detail = f"killed at the deadline of {job.deadline_s:g} s of computing{process.where}"
            return failed(Status.TIMEOUT, detail), _State.LOST
        except (EOFError, OSError):
            job.deaths += 1
            if job.deaths < _ATTEMPTS:
                return None, _State.LOST
            code = process.end()
            detail = f"{_ATTEMPTS} checking processes died of it{process.where}, the last with exit code {code}"
            return failed(Status.ERROR, detail), _State.LOST

    def _start(self, slot: int) -> CheckProcess | None:
        """None when the pool is closing or gives up."""
        for start in range(1, _STARTS + 1):
            process: CheckProcess | None = None
            try:
                process = CheckProcess(self._pickled_start, self._memory_gib, self._printed)
                with self._lock:
                    self._running[slot] = process
                    if self._closed:
                        process.kill()
                process.wait_ready()
                return process
            except RunError as error:
                if process is not None:
                    self._end(slot, process, replaced=False)
                if self._closed:
                    break
                if start == _STARTS:
                    self._stop(error)
        return None

    def _end(self, slot: int, process: CheckProcess, replaced: bool) -> None:
        with self._lock:
            self._running.pop(slot, None)
            self._counts.replaced += replaced
        process.end()

    def _count(self, ended: _Ended[Result]) -> None:
        with self._lock:
            self._counts.checks += 1
            self._counts.timeouts += ended.status is Status.TIMEOUT
            self._counts.errors += ended.status is Status.ERROR
