"""Sampling ahead of the learner: never further than the staleness bound, nothing thrown away, nobody held up without need."""

import asyncio
import itertools
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from system import SETTINGS, rollout_section, system_config
from virtual_time import PROBLEM, P, run

from actors.loop.batch import Batch, check_batch
from actors.loop.lookahead import Lookahead, drawing
from openrs_ray.errors import RunError
from openrs_ray.records import Completion, Group, Problem, VersionSpan
from openrs_ray.run.progress import Progress


def group(position: int, problem: Problem) -> Group:
    return Group(position, problem, (), ())


def lookahead(
    sample: Callable[[int, Problem], Awaitable[Group]],
    staleness: int,
    steps: int,
    deadline_s: float = 1e6,
    in_flight: int | None = None,
    **more: Any,
) -> Lookahead:
    drawn = ((position, PROBLEM) for position in itertools.count())
    section = rollout_section(P, staleness, deadline_s, in_flight=in_flight)
    return Lookahead(lambda at, problem, _: sample(at, problem), drawn, section, steps, SETTINGS, **more)


async def take_all(ahead: Lookahead, count: int, learn_s: float, seen: Callable[[int, list[int]], None]) -> None:
    """The loop, its learner a timer."""
    for step in range(1, count + 1):
        batch = await ahead.take(step)
        seen(step, [g.position for g in batch.groups])
        await asyncio.sleep(learn_s)


@pytest.mark.parametrize("staleness", [0, 1, 2, 5])
def test_no_group_is_older_than_the_bound_and_each_is_taken_once(staleness: int) -> None:
    rng = np.random.default_rng(staleness)
    admitted: dict[int, int] = {}
    taken: list[int] = []
    now = {"step": 1}

    async def sample(position: int, problem: Problem) -> Group:
        admitted[position] = now["step"] - 1
        assert len(admitted) - len(taken) <= (staleness + 1) * P, (
            "more between admission and training than the bound allows"
        )
        await asyncio.sleep(rng.pareto(1.2))
        return group(position, problem)

    def seen(step: int, positions: list[int]) -> None:
        assert len(positions) == P
        assert all(step - 1 - admitted[position] <= staleness for position in positions)
        taken.extend(positions)
        now["step"] = step + 1

    run(take_all(lookahead(sample, staleness, 200), 200, 0.5, seen))
    assert sorted(taken) == list(range(200 * P))


@pytest.mark.parametrize(("staleness", "in_flight"), [(0, 1), (0, 3), (1, 1), (1, 5), (2, 6), (5, 2), (5, 24)])
def test_groups_in_flight_are_as_many_as_asked_for_and_the_bound_holds(staleness: int, in_flight: int) -> None:
    rng = np.random.default_rng(in_flight)
    under_way, began, taken, now, most = set[int](), dict[int, int](), list[int](), {"step": 1}, 0

    async def sample(position: int, problem: Problem) -> Group:
        nonlocal most
        assert position == len(began), "first admitted, first begun"
        began[position] = now["step"] - 1
        under_way.add(position)
        most = max(most, len(under_way))
        await asyncio.sleep(rng.pareto(1.2))
        under_way.remove(position)
        return group(position, problem)

    ahead = lookahead(sample, staleness, 200, in_flight=in_flight)

    def seen(step: int, positions: list[int]) -> None:
        assert all(step - 1 - began[position] <= staleness for position in positions)
        taken.extend(positions)
        now["step"] = step + 1
        waiting = (staleness + 1) * P - P - len(began) + len(taken)
        if step + staleness < 200 and waiting:
            assert len(under_way) == in_flight, "none waits while there is room"

    run(take_all(ahead, 200, 0.5, seen))
    assert sorted(taken) == list(range(200 * P)) and most == in_flight


def test_the_next_group_begins_when_one_is_judged_and_none_after_the_end() -> None:
    began: dict[int, float] = {}

    async def sample(position: int, problem: Problem) -> Group:
        began[position] = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0 + position)
        return group(position, problem)

    async def scenario() -> None:
        ahead = lookahead(sample, 1, 10, in_flight=2)
        taking = asyncio.ensure_future(ahead.take(1))
        await asyncio.sleep(3.5)
        taking.cancel()
        await ahead.close()
        await asyncio.sleep(100.0)

    run(scenario())
    assert began == pytest.approx({0: 0.0, 1: 0.0, 2: 1.0, 3: 2.0})


def test_a_long_completion_holds_up_the_line_only_at_its_age_limit() -> None:
    finished_at: dict[int, float] = {}

    async def sample(position: int, problem: Problem) -> Group:
        await asyncio.sleep(10.0 if position == 0 else 0.1)
        return group(position, problem)

    def seen(step: int, positions: list[int]) -> None:
        finished_at[step] = asyncio.get_running_loop().time()
        assert (0 in positions) == (step == 3), (
            "the first 3 P were admitted together: position 0 can wait till the last of them"
        )

    run(take_all(lookahead(sample, 2, 4), 4, 1.0, seen))
    assert finished_at[1] == pytest.approx(0.1) and finished_at[2] == pytest.approx(1.1)
    assert finished_at[3] == pytest.approx(10.0)


def test_what_fails_is_said_at_once_and_a_wait_has_its_deadline() -> None:
    async def fails(position: int, problem: Problem) -> Group:
        await asyncio.sleep(1.0 if position == 7 else 100.0)
        raise RunError("rollout worker 1 died")

    async def never(position: int, problem: Problem) -> Group:
        await asyncio.sleep(1e6)
        return group(position, problem)

    async def take(sample: Callable[[int, Problem], Awaitable[Group]], deadline_s: float) -> float:
        ahead = lookahead(sample, 1, 2, deadline_s)
        with pytest.raises(
            RunError, match=r"rollout worker 1 died|waited 30 s for the rollout workers to finish 4 groups"
        ):
            await ahead.take(1)
        at = asyncio.get_running_loop().time()
        await ahead.close()
        assert len(ahead) == 0
        return at

    assert run(take(fails, 1000)) == pytest.approx(1.0)
    assert run(take(never, 30)) == pytest.approx(30.0)


def test_memory_stays_flat_over_ten_thousand_groups() -> None:
    async def sample(position: int, problem: Problem) -> Group:
        await asyncio.sleep(0.01 * (position % 7))
        return Group(position, Problem(position, "x" * 10_000, (1,), ("1",)), (), ())

    sizes: list[int] = []

    def seen(step: int, positions: list[int]) -> None:
        if step in (500, 2500):
            sizes.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        run(take_all(lookahead(sample, 2, 2500), 2500, 0.02, seen))
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 100_000, "2,000 steps later, no group of 10 kB may have stayed"


def test_idle_time_is_what_the_engines_had_nothing_to_sample() -> None:
    async def sample(position: int, problem: Problem) -> Group:
        await asyncio.sleep(1.0)
        return group(position, problem)

    async def scenario() -> list[float]:
        ahead = lookahead(sample, 1, 2, clock=asyncio.get_running_loop().time)
        await asyncio.sleep(2.0)
        ahead.admit([(0, PROBLEM), (1, PROBLEM)], 0)
        await asyncio.sleep(4.0)
        first = ahead.idle_seconds()
        await asyncio.sleep(0.5)
        ahead.admit([(2, PROBLEM)], 1)
        await asyncio.sleep(0.25)
        return [first, ahead.idle_seconds()]

    assert run(scenario()) == pytest.approx([2.0 + 3.0, 0.5])


def test_positions_that_were_trained_ahead_are_not_drawn_again(tmp_path: Path) -> None:
    config = system_config(tmp_path, tmp_path)

    def next_positions(progress: Progress, count: int) -> list[int]:
        return [position for position, _ in itertools.islice(drawing(config, [PROBLEM], progress), count)]

    progress = Progress(position=3).used([4, 7]).used([3])
    assert (progress.position, progress.ahead) == (5, (7,))
    assert next_positions(progress, 4) == [5, 6, 8, 9]
    resumed = Progress.read({"step": 2, "position": 8, "before": None, "after": None}, Path())
    assert next_positions(resumed, 1) == [8]


def test_tokens_older_than_the_bound_are_refused(tmp_path: Path) -> None:
    config = system_config(tmp_path, tmp_path, rollout={"staleness": 1})

    def aged(version: int) -> Group:
        spans = (VersionSpan(version, 0, 1), VersionSpan(9, 1, 2))
        return Group(0, PROBLEM, (Completion(0, 0, np.zeros(2), np.zeros(2), "stop", spans, 0),), ())

    check_batch(Batch([aged(8)], []), 10, config)
    with pytest.raises(RunError, match="step 10 was given tokens that are 2 versions old"):
        check_batch(Batch([aged(8), aged(7)], []), 10, config)
