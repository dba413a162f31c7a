"""Asks an actor that Ray starts again when it is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from actors.cluster.deadlines import within
from openrs_ray.errors import Lost

T = TypeVar("T")

_PAUSE_S = 2.0  # before a lost actor is asked again


@dataclass(eq=False)
class Restarted:
    """Asks again until the actor is back, for calls that do no harm when they are made twice."""

    name: str
    """Example: "the reward pool"."""
    deadline_s: float
    """For each call, and for all that one answer takes."""
    report: Callable[[str], None]
    """Told of every loss."""
    losses: int = field(default=0, init=False)
    _lost: bool = field(default=False, init=False)

    async def ask(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of `call()`, for which the actor is asked to do `what`. Lost past the deadline."""
        return await within(self.deadline_s, self.name, what, self._until_back(what, call))

    async def _until_back(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await within(self.deadline_s, self.name, what, call())
                self._lost = False
                return answer
            except Lost as error:
                if not self._lost:
                    self._lost = True
                    self.losses += 1
                    self.report(f"{self.name} is lost and asked again until it is back: {error}")
                await asyncio.sleep(_PAUSE_S)
