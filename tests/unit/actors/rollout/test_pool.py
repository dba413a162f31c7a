"""The sampling half of the engine pool, on real actors without engines."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from empty_worker import EmptyWorker, ReadingWorker
from system import system_config

from actors.cluster.placement import reserve
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.errors import RunError
from openrs_ray.records import Completion


def request(position: int, sample: int = 0) -> Request:
    return Request(position, sample, (1, 2), 0, 1.0, 8)


def with_pool(
    folder: Path,
    use: Callable[[EnginePool], Coroutine[Any, Any, None]],
    worker_class: type[EmptyWorker] = ReadingWorker,
    workers: int = 1,
    deadline_s: float = 60,
) -> list[str]:
    """The losses that were reported while the pool was used."""
    config = system_config(folder, folder, placement={"num_rollout_gpus": workers}, rollout={"deadline_s": deadline_s})
    losses: list[str] = []
    placement = reserve(plan_layout(config, "cpu"), config.placement.wait_s)
    pool = EnginePool(EngineSettings.of_run(config, "model", (2,)), placement, worker_class, losses.append)

    async def whole() -> None:
        await pool.start()
        try:
            await use(pool)
        finally:
            await pool.stop()

    try:
        asyncio.run(whole())
    finally:
        placement.release()
    return losses


def test_requests_of_one_moment_travel_in_one_call_and_those_of_a_later_one_in_another(
    ray_session: None, tmp_path: Path
) -> None:
    async def use(pool: EnginePool) -> None:
        async def group(position: int) -> list[Completion]:
            return await asyncio.gather(*(pool.sample(request(position, sample)) for sample in range(3)))

        first = await asyncio.gather(*(group(position) for position in range(4)))
        assert [[(c.position, c.sample) for c in group] for group in first] == [
            [(position, sample) for sample in range(3)] for position in range(4)
        ], "each gets its own"
        assert {tuple(c.token_ids[:2]) for group in first for c in group} == {(1, 12)}
        later = await group(4)
        assert {tuple(c.token_ids[:2]) for c in later} == {(2, 3)}
        # Two of the same position and sample, as of a held-out problem and one that is trained on.
        assert len(await asyncio.gather(pool.sample(request(5)), pool.sample(request(5)))) == 2

    assert with_pool(tmp_path, use) == []


def test_idle_workers_are_asked_in_turn_and_the_one_with_less_in_hand_first(ray_session: None, tmp_path: Path) -> None:
    async def use(pool: EnginePool) -> None:
        seen = [(c.position, c.worker) async for c in pool.completions([request(p) for p in range(7)])]
        assert sorted(seen) == [(p, p % 2) for p in range(7)]
        several = asyncio.gather(*(pool.sample(request(p)) for p in range(5)))  # worker 0 has one more
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        one = await pool.sample(request(8))
        assert one.worker == 1
        await several

    assert with_pool(tmp_path, use, workers=2) == []


def test_what_a_lost_worker_had_in_hand_is_asked_of_another_and_nothing_twice(
    ray_session: None, tmp_path: Path
) -> None:
    seen: list[Completion] = []

    async def use(pool: EnginePool) -> None:
        seen.extend([c async for c in pool.completions([request(p % 10, p) for p in range(18)])])

    (loss,) = with_pool(tmp_path, use, workers=2)
    assert loss.startswith("rollout worker 0 is lost, the others go on: ")
    assert sorted(c.sample for c in seen) == list(range(18))
    by_worker = Counter(c.worker for c in seen)
    assert by_worker[0] == 2, "what came before its end is kept"
    assert Counter(tuple(c.token_ids[:2]) for c in seen if c.worker == 1) == {(1, 9): 9, (2, 7): 7}


class BrokenWorker(ReadingWorker):
    """Fails in a way that another would repeat."""

    async def sample(self, requests: Any) -> Any:
        raise RunError("no such token")
        yield


class ForgetfulWorker(ReadingWorker):
    """Ends its answer before it has answered everything."""

    async def sample(self, requests: Any) -> Any:
        yield [self._read(0, requests[0], len(requests))]


class SilentWorker(ReadingWorker):
    """Is at work and never done."""

    async def sample(self, requests: Any) -> Any:
        await asyncio.sleep(1000)
        yield


def test_a_failure_that_another_would_repeat_and_a_deadline_are_errors(ray_session: None, tmp_path: Path) -> None:
    async def fail(pool: EnginePool) -> None:
        with pytest.raises(RunError, match="no such token"):
            await asyncio.gather(*(pool.sample(request(p)) for p in range(3)))

    async def wait(pool: EnginePool) -> None:
        with pytest.raises(RunError, match=r"finish the last 3 completions \(rollout.deadline_s is 1\)"):
            async for _ in pool.completions([request(p) for p in range(3)]):
                pass

    async def lose(pool: EnginePool) -> None:
        with pytest.raises(RunError, match="rollout worker 0 lost 2 of 3 completions"):
            await asyncio.gather(*(pool.sample(request(p)) for p in range(3)))

    assert with_pool(tmp_path, fail, BrokenWorker) == []
    assert with_pool(tmp_path, lose, ForgetfulWorker) == []
    assert with_pool(tmp_path, wait, SilentWorker, deadline_s=1) == []
