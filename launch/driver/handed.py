"""Recognises the second SIGTERM of one `ray job stop`: the supervising process hands its own on, and Ray signals the run, too."""

import math
import signal
import time
from collections.abc import Callable

_TOGETHER_S = 5.0
"""Signals within so many seconds, in either order, are one request."""


class HandedOn:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = -math.inf

    def now(self) -> None:
        self._at = self._clock()

    def repeats(self, number: int) -> bool:
        """True for one SIGTERM soon after `now`."""
        soon = number == signal.SIGTERM and self._clock() - self._at < _TOGETHER_S
        if soon:
            self._at = -math.inf
        return soon
