"""An event loop whose clock jumps, and the batch that the tests of the loop share."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from openrs_ray.records import Problem

T = TypeVar("T")
PROBLEM = Problem(0, "1+1", (1, 2), ("2",))
P = 4
"""Problems per step."""


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(selector=self._Selector(self))

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """At once, here: a thread's time is not this clock's."""
        done = self.create_future()
        done.set_result(work(*arguments))
        return done

    class _Selector(selectors.DefaultSelector):
        def __init__(self, loop: "VirtualTime") -> None:
            super().__init__()
            self._loop = loop

        def select(self, timeout: float | None = None) -> list[Any]:
            assert timeout is not None, "everybody waits and nobody is going to wake them"
            self._loop._now += max(0.0, timeout)
            return super().select(0)


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(work)
