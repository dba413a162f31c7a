"""Interrupts waiting when a stop is asked for or the budget is used up."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from openrs_ray.run.budget import Budget, Work

T = TypeVar("T")

_LOOK_S = 5.0  # between two looks at the budget: engines that come or go change how long it lasts


class Stopped(Exception):
    """The run can be resumed."""


class Limits:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop where nothing is lost. Call it from the event loop."""
        self._stop.set()

    async def interruptible(self, work: Awaitable[T], *then: Work) -> T:
        """Result of `work`, which is cancelled when a limit comes first.

        Raises:
            Stopped: stop() was called.
            LimitReached: less is left than `then` should take.
        """
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            while not (task.done() or self._stop.is_set()):
                wait_s = min(_LOOK_S, 0.01 + self._budget.check(*then))
                await asyncio.wait({task, stop}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise Stopped
            return task.result()
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.wait({task, stop}, timeout=_LOOK_S)  # or it would see what it waits for being ended
