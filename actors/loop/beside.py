"""Runs blocking work in a thread beside the loop, one piece at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Beside:
    """A thread for work that writes to the disk while the loop goes on. Its methods are called from the event loop.

    Example:
        beside.start(write)
        await beside.done()  # raises what `write` raised
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "record")
        self._work: asyncio.Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Start a piece of work. The previous one must have been waited for."""
        if self._work is not None:
            raise RuntimeError("the previous work was not waited for")
        self._work = asyncio.get_running_loop().run_in_executor(self._thread, work)

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
