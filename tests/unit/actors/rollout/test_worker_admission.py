"""Admission to an idle engine, which is paused meanwhile: it samples again whatever happens."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_time import run

from actors.rollout.worker import Request, RolloutWorker

REQUESTS = [Request(position, 0, (1, 2), 0, 1.0, 8) for position in range(3)]


class Engine:
    """Notes when it is paused and resumed."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.engine_core = SimpleNamespace(pause_scheduler_async=self.pause)

    async def pause(self, mode: str, clear_cache: bool) -> None:
        assert (mode, clear_cache) == ("keep", True)
        self.calls.append("pause")
        await asyncio.sleep(0)

    async def resume_generation(self) -> None:
        self.calls.append("resume")


def worker(engine: Engine, admit: Any) -> RolloutWorker:
    made = object.__new__(RolloutWorker)
    vars(made).update(_engine=engine, _pushing=False, _in_hand=set(), _worker=0, _admit=admit)
    return made


def test_all_are_admitted_while_it_is_paused() -> None:
    engine = Engine()

    async def admit(request: Request) -> int:
        engine.calls.append("admit")
        return request.position

    assert run(worker(engine, admit)._admit_all(REQUESTS)) == [0, 1, 2]
    assert engine.calls == ["pause", "admit", "admit", "admit", "resume"]


def test_a_refused_request_leaves_it_sampling() -> None:
    engine = Engine()

    async def admit(request: Request) -> int:
        if request.position == 1:
            raise ValueError("too long")
        return request.position

    with pytest.raises(ValueError, match="too long"):
        run(worker(engine, admit)._admit_all(REQUESTS))
    assert engine.calls == ["pause", "resume"]


@pytest.mark.parametrize("turns", [1, 2])
def test_a_cancelled_admission_leaves_it_sampling(turns: int) -> None:
    """Cancelled in the pause, or in an admission that hangs."""
    engine = Engine()

    async def admit(request: Request) -> int:
        await asyncio.sleep(3600)
        return request.position

    async def scenario() -> None:
        task = asyncio.ensure_future(worker(engine, admit)._admit_all(REQUESTS))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run(scenario())
    assert engine.calls == ["pause", "resume"]
