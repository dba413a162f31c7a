"""Sends figures to a service from a thread of its own: a service that fails or hangs costs the run nothing."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from openrs_ray.common.files import read_json, write_json
from openrs_ray.common.foreign import why
from openrs_ray.common.redaction import hide_secrets
from openrs_ray.errors import UserError
from openrs_ray.sinks.sink import SampleRow, Sink, SinkRun

_MOST = 20_000
"""Messages that wait, two or so per step; then the oldest are dropped."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""Before a message is sent again, doubled each time."""
_TRIES = 20
"""About a quarter of an hour; then a message is dropped, since the service may refuse just this one."""
_NOTE_S = 1.0
_FILE, _REMOTE, _SENT = "run.json", "remote", "sent"
"""Name of the remote run, and by kind of message the last step that it has."""


@dataclass(frozen=True, slots=True)
class _Message:
    kind: str
    """For the report of what was not sent: "step", "evaluation" or "table"."""
    step: int
    send: Callable[[Sink], None]


class Outbox:
    """Messages to one sink, in order; one that fails is sent again until it arrives or the run ends.

    No method raises, and none waits, except `close`, for a limited time.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Sink],
        run: SinkRun,
        tell: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        from_step: int = 0,
        most: int = _MOST,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """Start the thread, in which `make`, `tell` and `warn` are called.

        Args:
            tell: where the remote run is.
            warn: the first failure.
            from_step: the attempt trains on from here; figures of later steps that were sent count no more.
        """
        self.name, self._make, self._run, self._tell, self._warn = name, make, run, tell, warn
        self._sink: Sink | None = None
        self._opened = False
        self._file = run.folder / _FILE
        self._sent_steps = _count_to(from_step, self._file)
        self._newly_sent: dict[str, int] = {}
        self._noted_at = float("-inf")
        self._most, self._pause_s = most, pause_s
        self._waiting: deque[_Message] = deque()
        self._dropped: list[tuple[str, int]] = []  # kind and step
        self._changed = threading.Condition()
        self._closing = self._abandoned = self._warned = self._unconfirmed = False
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    def metrics(self, step: int, phase: str, figures: Mapping[str, float]) -> None:
        self._put(_Message(_kind(phase), step, lambda sink: sink.metrics(step, figures)))

    def lacks(self, step: int, phase: str) -> bool:
        """True where an earlier attempt ended before the service had these figures."""
        return self._sent_steps is not None and step > self._sent_steps.get(_kind(phase), -1)

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None:
        self._put(_Message("table", step, lambda sink: sink.samples(step, phase, rows)))

    def _put(self, message: _Message) -> None:
        with self._changed:
            if len(self._waiting) >= self._most:
                second = self._waiting[1]  # the first one is being sent
                del self._waiting[1]
                self._dropped.append((second.kind, second.step))
            self._waiting.append(message)
            self._changed.notify()

    def close(self, deadline: float) -> str:
        """Wait until all is sent, at most until `deadline` on the monotonic clock. A sentence about the rest; empty if none."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._abandoned = True  # what answers only now must not be sent beside the next attempt's figures
            unsent = [*self._dropped, *((message.kind, message.step) for message in self._waiting)]
            late = self._thread.is_alive() or self._unconfirmed
        if unsent:
            return f"{self.name} was not sent {_counted(unsent)}: metrics.jsonl and completions/ in the run's folder have them"
        return f"{self.name} did not confirm in time that everything arrived" if late else ""

    def _work(self) -> None:
        self._once(self._open)  # before there are figures: if it fails, the first ones try again
        while message := self._next():
            sent = self._sent(partial(self._send, message))
            if self._abandoned or (self._closing and not sent):
                return
            with self._changed:
                self._waiting.popleft()
                if not sent:
                    self._dropped.append((message.kind, message.step))
            if sent:
                self._note(message)
        if self._opened and self._sink:
            self._unconfirmed = not self._once(self._sink.close)

    def _send(self, message: _Message) -> None:
        message.send(self._open())

    def _open(self) -> Sink:
        self._sink = sink = self._sink or self._make()
        if self._opened:
            return sink
        known = read_json(self._file) or {}
        remote = sink.open(replace(self._run, remote=str(known.get(_REMOTE, ""))))
        self._opened = True
        if remote != known.get(_REMOTE):
            write_json(self._file, {_REMOTE: remote, _SENT: {}})
        self._tell(f"{self.name}: {sink.where}")
        return sink

    def _note(self, message: _Message) -> None:
        """Keep the step for the next attempt, to which a kill before that costs figures that are sent twice."""
        self._newly_sent[message.kind] = message.step
        if self._waiting and time.monotonic() < self._noted_at + _NOTE_S:
            return
        with suppress(OSError, UserError):  # of a disk that is full the run's own writers tell
            known = read_json(self._file) or {}
            write_json(self._file, known | {_SENT: known.get(_SENT, {}) | self._newly_sent})
        self._noted_at = time.monotonic()

    def _next(self) -> _Message | None:
        """The oldest message, which stays first in the queue until it is sent; None when all are sent and the run ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting[0] if self._waiting else None

    def _sent(self, act: Callable[[], object]) -> bool:
        """False when it has failed too often, or fails while the run ends."""
        pause = self._pause_s
        for _ in range(_TRIES):
            if self._once(act):
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, pause):
                    return self._once(act)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return False

    def _once(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except BaseException as error:  # a library's own SystemExit, too, must end neither the thread nor the run
            if not self._warned:
                self._warned = True
                reason = hide_secrets(why(error)) if isinstance(error, Exception) else type(error).__name__
                self._warn(
                    f"{self.name} cannot be reached ({reason}); it is tried again, and training goes on without it"
                )
            return False
        return True


def _kind(phase: str) -> str:
    return "step" if phase == "train" else phase


def _count_to(step: int, file: Path) -> Mapping[str, int] | None:
    """Last steps sent, by kind, lowered to `step` in the file as well; None where an older version has not noted them."""
    try:
        known = read_json(file)
    except UserError:  # it is said when the sink opens
        return None
    if known is None:
        return {}
    if not isinstance(known.get(_SENT), dict):
        return None
    sent = {kind: min(last, step) for kind, last in known[_SENT].items()}
    if sent != known[_SENT]:
        with suppress(OSError):
            write_json(file, known | {_SENT: sent})
    return sent


def _counted(messages: Sequence[tuple[str, int]]) -> str:
    """Example: "3 steps (48 to 50), 1 evaluation (50)" """
    steps: dict[str, list[int]] = defaultdict(list)
    for kind, step in messages:
        steps[kind].append(step)
    return ", ".join(f"{len(of):,} {kind}{'s' * (len(of) > 1)} ({_range(of)})" for kind, of in steps.items())


def _range(steps: Sequence[int]) -> str:
    return str(min(steps)) if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
