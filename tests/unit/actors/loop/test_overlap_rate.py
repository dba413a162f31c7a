"""Rollouts that run ahead: what they gain, with engines and learner replaced by timers on a clock that jumps.

Times as measured in parts on one H100 for a 1.5B model: 5.0 s for 1,024 tokens of 72 completions at once, learner and push 2.9 s
a step. Lengths are log-normal (median 500 tokens, cut at 3,584), so that nearly every step has a completion of 17 s.
"""

import asyncio
import itertools
from functools import cache

import numpy as np
import pytest
from system import SETTINGS, rollout_section
from virtual_time import PROBLEM, run

from actors.loop.lookahead import Lookahead
from openrs_ray.records import Group, Problem, Status, Verdict
from openrs_ray.run.step_settings import StepSettings

PROBLEMS, COMPLETIONS, SLOTS, STEPS = 12, 6, 72, 300
TOKEN_S = 5.0 / 1024


@cache
def lengths(position: int) -> np.ndarray:
    return np.minimum(3584, np.random.default_rng(position).lognormal(np.log(500), 1.0, COMPLETIONS))


class Engines:
    """Every second group, at random, has no spread."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(SLOTS)

    async def _complete(self, length: float) -> None:
        async with self._slots:
            await asyncio.sleep(length * TOKEN_S)

    async def sample(self, position: int, problem: Problem, settings: StepSettings) -> Group:
        await asyncio.gather(*(self._complete(length) for length in lengths(position)))
        other = np.random.default_rng([1, position]).integers(2)
        return Group(
            position, problem, (), tuple(Verdict(Status.CORRECT, {}, reward) for reward in (1.0, float(other)))
        )


@cache
def seconds_per_step(staleness: int, learn_s: float, replaced: int = 0, in_flight: int | None = None) -> float:
    return run(trained(staleness, learn_s, replaced, in_flight))


async def trained(staleness: int, learn_s: float, replaced: int, in_flight: int | None) -> float:
    """Seconds per step."""
    loop, engines = asyncio.get_running_loop(), Engines()
    rollout = rollout_section(PROBLEMS, staleness, replaced=replaced, in_flight=in_flight)
    drawn = ((position, PROBLEM) for position in itertools.count())
    sampling = Lookahead(engines.sample, drawn, rollout, STEPS + staleness, SETTINGS)
    for step in range(1, STEPS + 1):
        await sampling.take(step)
        await asyncio.sleep(learn_s)
    seconds = loop.time() / STEPS
    await sampling.close()
    return seconds


@pytest.mark.parametrize("learn_s", [2.9, 17.0, 30.0])
def test_the_slower_side_never_waits(learn_s: float) -> None:
    """The ideal: a step takes as long as the slower of generating it alone and learning from it."""
    synchronous = seconds_per_step(0, learn_s)
    ideal = max(synchronous - learn_s, learn_s)
    assert synchronous > 1.15 * ideal, "there must be something to gain"
    for staleness in (1, 2):
        assert ideal / seconds_per_step(staleness, learn_s) >= 0.95


def test_batches_overlap_where_generation_is_the_slower_side() -> None:
    """k + 1 of them: the rate grows nearly so many times beyond one batch after another, as long as slots are free."""
    alone = seconds_per_step(0, 0.01)
    for staleness in (1, 2, 3):
        assert alone / seconds_per_step(staleness, 0.01) > 0.9 * (staleness + 1)


@pytest.mark.parametrize("learn_s", [17.0, 30.0])
def test_replacing_half_of_the_groups_is_hidden_two_versions_ahead(learn_s: float) -> None:
    """It doubles what is sampled, and a synchronous step has to wait for the longest completion of every round of it."""
    ideal = seconds_per_step(2, learn_s)
    assert ideal / seconds_per_step(2, learn_s, replaced=3) >= 0.95
    assert seconds_per_step(0, learn_s, replaced=3) - learn_s > 3 * (seconds_per_step(0, learn_s) - learn_s)


def test_fewer_groups_in_flight_take_longer_where_generation_is_the_slower_side() -> None:
    """And cost nothing where learning is (docs/performance.md)."""
    assert seconds_per_step(4, 2.9, in_flight=18) == pytest.approx(6.4, rel=0.02)
    assert seconds_per_step(4, 2.9, in_flight=36) == pytest.approx(seconds_per_step(4, 2.9), rel=0.02)
    assert seconds_per_step(4, 30.0, in_flight=12) == pytest.approx(seconds_per_step(4, 30.0), rel=0.02)
