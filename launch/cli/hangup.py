"""Signals that stop a command."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGINT, SIGTERM and, but under `nohup`, SIGHUP."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_terminal() -> None:
    """Discard output to the terminal: it may be gone."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for end in (0, 1, 2):
        if stat.S_ISCHR(os.fstat(end).st_mode):
            os.dup2(nowhere, end)
    os.close(nowhere)


class Stop(SystemExit):
    """SystemExit, the only kind that asyncio hands on from a signal's handler."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.exit_code = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block with Stop."""

    def stop(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        raise Stop(number)

    if threading.current_thread() is not threading.main_thread():  # Python handles signals there only
        yield
        return
    numbers = [number for number in stop_signals() if number != signal.SIGINT]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
