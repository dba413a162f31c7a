"""What the asynchronous loop gains, with engines and learner replaced by timers on a clock that jumps.

Times as measured in parts on one H100 for a 1.5B model: 5.0 s for 1,024 tokens of 72 completions at once, learner and push 2.9 s
a step. Lengths are log-normal (median 500 tokens, cut at 3,584), so that nearly every step has a completion of 17 s.
"""

import asyncio

import numpy as np
import pytest
from test_ahead import PROBLEM, run

from actors.ahead import GroupsAhead
from openrs_ray.samples import Group, Problem

PROBLEMS, COMPLETIONS, SLOTS, STEPS = 12, 6, 72, 300
TOKEN_S = 5.0 / 1024


def lengths(position: int) -> np.ndarray:
    return np.minimum(3584, np.random.default_rng(position).lognormal(np.log(500), 1.0, COMPLETIONS))


async def seconds_per_step(staleness: int, learn_s: float) -> float:
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(SLOTS)

    async def complete(length: float) -> None:
        async with slots:
            await asyncio.sleep(length * TOKEN_S)

    async def sample(position: int, problem: Problem) -> Group:
        await asyncio.gather(*(complete(length) for length in lengths(position)))
        return Group(position, problem, (), ())

    ahead, position = GroupsAhead(sample, PROBLEMS, staleness, 1e9), 0
    for step in range(1, STEPS + 1):
        free = ahead.free
        ahead.admit([(position + i, PROBLEM) for i in range(free)], step - 1)
        position += free
        await ahead.take(step)
        await asyncio.sleep(learn_s)
    return loop.time() / STEPS


@pytest.mark.parametrize("learn_s", [2.9, 17.0, 30.0])
def test_the_slower_side_never_waits(learn_s: float) -> None:
    """The ideal: a step takes as long as the slower of generating it alone and learning from it."""
    synchronous = run(seconds_per_step(0, learn_s))
    ideal = max(synchronous - learn_s, learn_s)
    assert synchronous > 1.15 * ideal, "there must be something to gain"
    for staleness in (1, 2):
        assert ideal / run(seconds_per_step(staleness, learn_s)) >= 0.95


def test_batches_overlap_where_generation_is_the_slower_side() -> None:
    """k + 1 of them: the rate grows nearly so many times beyond one batch after another, as long as slots are free."""
    alone = run(seconds_per_step(0, 0.01))
    for staleness in (1, 2, 3):
        assert alone / run(seconds_per_step(staleness, 0.01)) > 0.9 * (staleness + 1)
