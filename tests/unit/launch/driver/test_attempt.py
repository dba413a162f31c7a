"""The outcome of an attempt, with the actors replaced."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from guarded import guarded

from actors.loop.guard import RolledBack
from launch.driver.attempt import Outcome, attempt


class ClosesSlowly:
    """A system whose run goes back, and that is sent a signal while it closes."""

    signals: tuple[signal.Signals, ...] = ()

    def __init__(self, *given: Any) -> None:
        pass

    async def start(self) -> Any:
        return self

    async def run(self) -> Any:
        raise RolledBack("accuracy fell: the run goes back")

    async def close(self) -> None:
        for number in self.signals:
            os.kill(os.getpid(), number)
        await asyncio.sleep(0.1)


class Silent:
    """Takes every call."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: None


@pytest.mark.parametrize(("signals", "code"), [((), 1), ((signal.SIGTERM,), 128 + 15), ((signal.SIGINT,), 128 + 2)])
def test_a_signal_that_comes_while_a_rollback_closes_its_actors_stops_the_run(
    signals: tuple[signal.Signals, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.loop.system.System", ClosesSlowly)
    monkeypatch.setattr(ClosesSlowly, "signals", signals)
    silent: Any = Silent()
    told: list[Outcome] = []
    outcome = asyncio.run(attempt(guarded("off", tmp_path), silent, silent, silent, silent, told.append, silent))
    assert outcome.code == code and outcome.again == (not signals) and told[-1] == outcome
    if signals:
        place = f"Run run stopped before it goes back to an earlier checkpoint; it can be resumed from {tmp_path}/run."
        assert outcome.sentence == place
