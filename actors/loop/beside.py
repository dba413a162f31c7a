"""Runs blocking work in a thread beside the loop, one piece at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Beside:
    """A thread for work that writes to the disk while the loop goes on. Its methods are called from the event loop.

    Example:
        beside.start(write)
        await beside.done()  # raises what `write` raised
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "record")
        self._work: asyncio.Future[None] | None = None

    def start(self, work: Callable[..., None], after: Awaitable[Any] | None = None) -> None:
        """Start a piece of work, which is given the result of `after` once there is one.

        The previous piece must have been waited for.
        """
        if self._work is not None:
            raise RuntimeError("the previous work was not waited for")
        loop = asyncio.get_running_loop()
        if after is None:
            self._work = loop.run_in_executor(self._thread, work)
        else:
            self._work = asyncio.ensure_future(self._later(work, after))

    async def _later(self, work: Callable[..., None], after: Awaitable[Any]) -> None:
        found = await after
        await asyncio.get_running_loop().run_in_executor(self._thread, work, found)

    async def done(self) -> None:
        """Wait for the work that was started, if any; raises its error."""
        if self._work is not None:
            work, self._work = self._work, None
            await work

    async def close(self) -> None:
        """Wait as `done` does, then end the thread."""
        try:
            await self.done()
        finally:
            self._thread.shutdown()
