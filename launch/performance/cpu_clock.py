"""CPU time by component: each thread's own, without that of components inside."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


class CpuClock:
    """Counts seconds of CPU time by component, over all threads.

    clock = CpuClock()
    with clock.patched(group, "split", "packing"):
        with clock.counting("record"):
            ...
    clock.seconds["packing"]
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = threading.local()

    @contextmanager
    def counting(self, component: str) -> Iterator[None]:
        """Counts a block without `await`."""
        outer: float = getattr(self._inside, "seconds", 0.0)
        self._inside.seconds, began = 0.0, time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
            self.seconds[component] += took - self._inside.seconds
            self._inside.seconds = outer + took

    def counted(self, function: Callable[..., Any], component: str) -> Callable[..., Any]:
        """The function, its calls counted. Not for coroutines."""

        @wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            with self.counting(component):
                return function(*arguments, **more)

        return call

    @contextmanager
    def patched(self, owner: Any, name: str, component: str) -> Iterator[None]:
        """Counts the calls of a function of a module or class."""
        original = vars(owner)[name]
        setattr(owner, name, self.counted(getattr(owner, name), component))
        try:
            yield
        finally:
            setattr(owner, name, original)
