"""Calls of one turn of the event loop, gathered into one."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Together(Generic[Item, Answer]):
    """Sends all items that are asked for in one turn of the event loop as one batch, in order.

    `pause_s`: least time between two batches. No item waits longer than that, and none waits if the last batch left longer ago.

    together = Together(send)  # async def send(batch): sets the result of every future
    answers = await asyncio.gather(together.ask(1), together.ask(2))  # sent in one call
    """

    def __init__(
        self, send: Callable[[list[tuple[Item, asyncio.Future[Answer]]]], Awaitable[None]], pause_s: float = 0.0
    ) -> None:
        self._send = send
        self._pause_s = pause_s
        self._next_s = -math.inf  # earliest time of the next batch, on the loop's clock
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def ask(self, item: Item) -> asyncio.Future[Answer]:
        """Raises what `send` raises. A batch is given up when all its futures are cancelled."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            wait_s = self._next_s - loop.time()
            if wait_s > 0:
                loop.call_later(wait_s, self._go)
            else:
                loop.call_soon(self._go)
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        return answer

    def _go(self) -> None:
        batch, self._waiting = self._waiting, []
        self._next_s = asyncio.get_running_loop().time() + self._pause_s
        task = asyncio.ensure_future(self._deliver(batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        left = len(batch)

        def answered(_: asyncio.Future[Answer]) -> None:
            nonlocal left
            left -= 1
            if not left:
                task.cancel()

        for _, answer in batch:
            answer.add_done_callback(answered)

    async def _deliver(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            await self._send(batch)
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)

    async def close(self) -> None:
        """Give up the batches under way."""
        for task in (tasks := list(self._sending)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
