"""One attempt of a run, from its signals to its outcome."""

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launch.cli.hangup import leave_terminal, stop_signals
from launch.driver.shutdown import Shutdown
from openrs_ray.common.formatting import sentences
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Recurring, RunError, UserError
from openrs_ray.run.budget import Budget
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.progress import Progress

if TYPE_CHECKING:
    from actors.cluster.placement import Placement
    from actors.loop.loop import Loop
    from openrs_ray.preparation.prepared import Prepared

_TOGETHER_S = 5.0
"""Signals within so many seconds are one request."""


@dataclass(frozen=True)
class Outcome:
    code: int
    progress: Progress | None
    """Of a run that is complete, or was ended by a limit of `cost`."""
    sentence: str = ""
    """Why it is neither."""
    recurs: bool = False
    """Resuming the run unchanged cannot help."""
    again: bool = False
    """The run has decided to go back, and another attempt must follow at once."""


class HandedOn:
    """The second SIGTERM of one `ray job stop`: from the supervising process, and from Ray."""

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


async def attempt(
    config: RunConfig,
    prepared: "Prepared",
    placement: "Placement",
    display: RunDisplay,
    budget: Budget,
    end: Callable[[Outcome], None],
    shutdown: Shutdown,
) -> Outcome:
    """An attempt whose actors are closed under a deadline; `end` is told of its outcome first.

    A signal that comes while the actors of a rollback are closed stops the run.
    """
    received: list[int] = []
    async with AsyncExitStack() as closing:
        try:
            outcome = await _trained(config, prepared, placement, display, budget, closing, received)
            end(outcome)
            unsaid = "the run goes back to an earlier checkpoint with --resume; " if outcome.again else ""
            shutdown.waits_for("closing the actors", outcome.code, unsaid)
        except BaseException as error:
            code = 2 if isinstance(error, UserError) else 1
            shutdown.waits_for("closing the actors", code, f"error: {sentences(str(error))}\n")
            raise
    if outcome.again and received:
        outcome = _stopped(config, "before it goes back to an earlier checkpoint", received[0])
        end(outcome)
        shutdown.waits_for("closing the actors", outcome.code)
    return outcome


def _stopped(config: RunConfig, where: str, number: int) -> Outcome:
    sentence = f"Run {config.run.name} stopped {where}; it can be resumed from {config.run.path}."
    return Outcome(128 + number, None, sentence)


async def _trained(
    config: RunConfig,
    prepared: "Prepared",
    placement: "Placement",
    display: RunDisplay,
    budget: Budget,
    closing: AsyncExitStack,
    received: list[int],
) -> Outcome:
    """`received`: signals, to be filled as long as the event loop runs."""
    from actors.loop.guard import RolledBack
    from actors.loop.limits import Limits, Stopped
    from actors.loop.system import System
    from launch.driver.supervise import STOP, code_of_recurring

    limits = Limits(budget)
    system = System(config, prepared, placement, display, budget, limits)
    closing.push_async_callback(system.close)
    handed_on = HandedOn()

    def on_signal(number: int) -> None:
        if received and (number == signal.SIGHUP or handed_on.repeats(number)):
            return  # a terminal's end comes twice, from the kernel and from the shell
        if received:
            display.close()
            os._exit(128 + number)  # asked twice: at once; the last checkpoint stands
        received.append(number)
        if number == signal.SIGHUP:
            leave_terminal()
        # All that one needs to know, at once: whoever sent this may soon send SIGKILL.
        display.note(
            f"{signal.Signals(number).name}: run {config.run.name} in {config.run.path} stops at the next point where nothing "
            "is lost; --resume continues it (once more: at once)"
        )
        limits.stop()

    def on_stop() -> None:
        if not received:
            on_signal(signal.SIGTERM)
            handed_on.now()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(STOP, on_stop)
    run: Loop | None = None
    try:
        run = await system.start()
        return Outcome(0, await run.run())
    except (Stopped, RolledBack) as ended:
        if not received:
            return Outcome(1, None, f"{ended}", again=True)
        return _stopped(config, f"after step {(run or system).progress.step}", received[0])
    except Recurring as error:
        return Outcome(code_of_recurring(), None, f"error: {sentences(str(error))}", recurs=True)
    except (RunError, OSError) as error:
        # What keeps a run from starting would do so again, unless a process was lost (a kind of its own) or the disk is full.
        return Outcome(1, None, f"error: {sentences(str(error))}", recurs=run is None and type(error) is RunError)
