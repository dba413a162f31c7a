"""A step's completions and verdicts become groups, also when the reward pool loses a process to one of them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import poisoned_checks
import pytest
import ray

from actors.learner.group import training_sequences
from actors.loop.collector import Collector
from actors.reward import RewardPool
from actors.rollout.worker import Request
from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.step_metrics import check_judged, step_metrics
from openrs_ray.algorithm.unusable import unusable_warning
from openrs_ray.config import schema as config
from openrs_ray.errors import RunError
from openrs_ray.records import Completion, Group, Problem, Status, Verdict, VersionSpan
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

DEADLINE_S = 1.0
WEIGHTS = {"accuracy": 1.0}
PROBLEMS = [Problem(i, str(i), (1, 2), ("1",)) for i in range(3)]
DRAWN = [(40 + i, problem) for i, problem in enumerate(PROBLEMS)]
REQUESTS = [Request(position, sample, (1, 2), 0, 1.0, 8) for position, _ in DRAWN for sample in range(4)]


class Engines:
    """Stands in for the rollout workers: completions come late and out of order, each naming itself in its tokens."""

    def __init__(self, lost: int = 0) -> None:
        self._lost = lost

    async def completions(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        order = np.random.default_rng(0).permutation(len(requests))[self._lost :]
        for part in np.array_split(order, 4):
            await asyncio.sleep(0.05)
            for i in part:
                yield self._completion(requests[i], 7)

    def _completion(self, request: Request, version: int) -> Completion:
        ids = np.array([request.position, request.sample], dtype=np.int32)
        logprobs = np.full(2, -0.5, dtype=np.float32)
        return Completion(request.position, request.sample, ids, logprobs, "stop", (VersionSpan(version, 0, 2),), 0)


class PoisonedPool(RewardPool):
    """The real pool, with checks that do what the completion's text tells them to."""

    def __init__(self, rewards: config.Rewards) -> None:
        super().__init__(rewards)
        self._pool.close()
        self._pool = CheckPool(poisoned_checks.judge_text, 2, DEADLINE_S, 1.0)

    async def process(self) -> int:
        return os.getpid()


def decode(completions: Sequence[np.ndarray]) -> list[str]:
    return ["hang" if list(ids) == [41, 2] else f"reward {ids[1]}" for ids in completions]


def test_a_poisoned_answer_costs_its_own_verdict_and_nothing_else(ray_session: None) -> None:
    pool = ray.remote(PoisonedPool).remote(config.Rewards(processes=1))
    try:
        ray.get(pool.counts.remote(), timeout=60)
        began = time.monotonic()
        groups = asyncio.run(Collector(Engines(), pool, decode, 60, WEIGHTS, pytest.fail).collect(DRAWN, REQUESTS, 7))
        assert time.monotonic() - began < 20
        assert ray.get(pool.counts.remote(), timeout=60)["replaced"] == 1
    finally:
        ray.get(pool.close.remote(), timeout=60)
        ray.kill(pool)
    assert [group.position for group in groups] == [40, 41, 42]
    for group in groups:
        assert [c.sample for c in group.completions] == [0, 1, 2, 3]
        assert all(list(c.token_ids) == [group.position, c.sample] for c in group.completions)
        expected = [0.0, 1.0, np.nan if group.position == 41 else 2.0, 3.0]
        np.testing.assert_array_equal(group.rewards(), expected)
    figures = step_metrics(groups)
    assert figures["timeouts"] == 1 and figures["errors"] == 0
    assert figures["reward"] == pytest.approx((0 + 1 + 2 + 3 + 0 + 1 + 3 + 0 + 1 + 2 + 3) / 11)
    sequences = training_sequences(groups, advantages(np.stack([group.rewards() for group in groups]), 1e-4))
    assert len(sequences) == 11, "the completion that timed out is in no loss"
    check_judged(groups, 1, limit=1 / 12)
    with pytest.raises(RunError, match="1 checks timed out and 0 failed of 12"):
        check_judged(groups, 1, limit=0.05)
    assert groups[1].verdicts[2].status is Status.TIMEOUT


def test_what_a_killed_pool_had_in_hand_is_judged_again(ray_session: None) -> None:
    pool = ray.remote(PoisonedPool).options(max_restarts=-1).remote(config.Rewards(processes=1))
    victim = ray.get(pool.process.remote(), timeout=60)
    losses: list[str] = []

    async def collect_and_kill() -> list[Group]:
        collecting = asyncio.ensure_future(
            Collector(Engines(), pool, decode, 60, WEIGHTS, losses.append).collect(DRAWN, REQUESTS, 7)
        )
        await asyncio.sleep(0.5)  # a second before the check that hangs is given up
        os.kill(victim, signal.SIGKILL)
        return await collecting

    try:
        groups = asyncio.run(collect_and_kill())
        assert ray.get(pool.process.remote(), timeout=60) != victim
    finally:
        ray.get(pool.close.remote(), timeout=60)
        ray.kill(pool)
    for group in groups:
        expected = [0.0, 1.0, np.nan if group.position == 41 else 2.0, 3.0]
        np.testing.assert_array_equal(group.rewards(), expected)
    assert len(losses) == 1 and losses[0].startswith("the reward pool is lost")


def test_lost_completions_are_an_error(ray_session: None) -> None:
    pool = ray.remote(PoisonedPool).remote(config.Rewards(processes=1))
    try:
        with pytest.raises(RunError, match="lost 1 of 12 completions"):
            asyncio.run(
                Collector(Engines(lost=1), pool, lambda ids: ["reward 0"] * len(ids), 60, WEIGHTS, pytest.fail).collect(
                    DRAWN, REQUESTS, 7
                )
            )
    finally:
        ray.get(pool.close.remote(), timeout=60)
        ray.kill(pool)


class Checks:
    """Stands in for the reward pool: everything is correct."""

    def __init__(self) -> None:
        self.judge = self

    async def remote(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        return [Verdict(Status.CORRECT, {"accuracy": 1.0}, 1.0) for _ in items]


class LongerEngines(Engines):
    """The same, with completions of 3, 4, 5 and 7 tokens in each group."""

    def _completion(self, request: Request, version: int) -> Completion:
        made = super()._completion(request, version)
        return replace(made, token_ids=np.zeros((3, 4, 5, 7)[request.sample], dtype=np.int32))


def test_what_compares_a_group_is_added_when_it_is_complete() -> None:
    weights = {"accuracy": 1.0, "length": 2.0}
    collector = Collector(LongerEngines(), Checks(), lambda ids: [""] * len(ids), 60, weights, pytest.fail)
    groups = asyncio.run(collector.collect(DRAWN, REQUESTS, 7))
    for group in groups:  # 0.5 - (length - 3) / 4, twice
        np.testing.assert_allclose(group.rewards(), [1 + 1.0, 1 + 0.5, 1 + 0.0, 1 - 1.0])
        assert [dict(v.rewards) for v in group.verdicts][3] == {"accuracy": 1.0, "length": -0.5}


class BrokenEngines(Engines):
    """Engines with log-probabilities that are not finite in two completions."""

    def _completion(self, request: Request, version: int) -> Completion:
        made = super()._completion(request, version)
        planted = {(41, 2): -np.inf, (42, 0): np.nan}.get((request.position, request.sample))
        return made if planted is None else replace(made, logprobs=np.array([-0.5, planted], dtype=np.float32))


def test_a_log_probability_that_is_not_finite_takes_its_completion_out_of_the_loss_and_is_named() -> None:
    weights = {"accuracy": 1.0, "length": 2.0}
    collector = Collector(BrokenEngines(), Checks(), lambda ids: [""] * len(ids), 60, weights, pytest.fail)
    groups = asyncio.run(collector.collect(DRAWN, REQUESTS, 7))
    unjudged = [(group.position, sample) for group in groups for sample in np.flatnonzero(np.isnan(group.rewards()))]
    assert unjudged == [(41, 2), (42, 0)]
    assert groups[1].verdicts[2].status is Status.ERROR and not groups[1].verdicts[2].rewards
    assert groups[1].verdicts[2].detail == "the engine's log-probability of token 1 is -inf"
    assert step_metrics(groups)["errors"] == 2, "counted"
    values = advantages(np.stack([group.rewards() for group in groups]), 1e-4)
    sequences = training_sequences(groups, values)
    assert len(sequences) == 10 and all(np.isfinite(sequence.sampler_logprobs).all() for sequence in sequences)
    assert unusable_warning(groups, 8) == (
        "step 8: in 2 completions the engine gave a log-probability that is not finite, so they are not judged: "
        "problem 1 (position 41), sample 2, token 1; problem 2 (position 42), sample 0, token 1"
    )
    assert unusable_warning(groups[:1], 8) is None
    with pytest.raises(RunError, match="2 failed of 12"):
        check_judged(groups, 8, limit=0.1)
