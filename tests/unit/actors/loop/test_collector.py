"""A step's completions and verdicts become groups, also when the reward pool loses a process to one of them."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import poisoned_checks
import pytest
import ray
from tasks import task_of
from tiny import make_config

from actors.learner.group import training_sequences
from actors.loop.collector import Collector, Sampling
from actors.pools.messages import Judged, SampledItem
from actors.pools.reward import Decode, RewardPool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.step_metrics import check_judged, step_metrics
from openrs_ray.algorithm.unusable import unusable_warning
from openrs_ray.config import schema as config
from openrs_ray.data.completions import Texts
from openrs_ray.environments.environment import Engines as Turns
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.reply import RolloutFailed
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.errors import RunError
from openrs_ray.records import (
    Completion,
    Group,
    Problem,
    Rollout,
    SamplingSettings,
    Status,
    Verdict,
    VersionSpan,
)
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.run.step_settings import Changes, StepSettings
from openrs_ray.seeds import completion_seed, turn_seed

DEADLINE_S = 1.0
WEIGHTS = {"accuracy": 1.0}
PROBLEMS = [Problem(i, str(i), (1, 2), ("1",)) for i in range(3)]
DRAWN = [(40 + i, problem) for i, problem in enumerate(PROBLEMS)]
PLAN = Sampling("train", 0, 4, 1.0)


class Engines:
    """Stands in for the engine pool: completions come late and out of order, each naming itself in its tokens."""

    async def sample(self, request: Request) -> Completion:
        self.asked.append(request)
        await asyncio.sleep(0.05 * (1 + (7 * request.position + 5 * request.sample) % 4))
        return self._completion(request, 7)

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def _completion(self, request: Request, version: int) -> Completion:
        ids = np.array([request.position, request.sample], dtype=np.int32)
        logprobs = np.full(2, -0.5, dtype=np.float32)
        return Completion(request.position, request.sample, ids, logprobs, "stop", (VersionSpan(version, 0, 2),), 0)


class PoisonedPool(RewardPool):
    """The real pool, with checks that do what the completion's text tells them to."""

    def __init__(self, rewards: config.Rewards, decode: Decode) -> None:
        super().__init__([task_of(rewards)], decode=decode)
        self._pool.close()
        self._pool = CheckPool(poisoned_checks.judge_text, 2, DEADLINE_S, 1.0)

    async def process(self) -> int:
        return os.getpid()


def decode(rollouts: Sequence[SampledItem]) -> list[Texts]:
    texts = ["hang" if list(r.token_ids) == [41, 2] else f"reward {r.token_ids[1]}" for r in rollouts]
    return [Texts(f"whole {text}", text) for text in texts]


async def collected(
    engines: Any,
    pool: Any,
    report: Callable[[str], object] = pytest.fail,
    environment: Environment | None = None,
    weights: dict[str, float] = WEIGHTS,
) -> list[Group]:
    config = make_config(Path("/nowhere"), rewards={"weights": weights})
    collector = Collector(config, engines, pool, {"": environment or SingleTurn()}, report)  # type: ignore[arg-type]
    return list(await asyncio.gather(*(collector.group(*drawn, PLAN) for drawn in DRAWN)))


def test_a_poisoned_answer_costs_its_own_verdict_and_nothing_else(ray_session: None) -> None:
    pool = ray.remote(PoisonedPool).remote(config.Rewards(processes=1), decode)
    try:
        ray.get(pool.counts.remote(), timeout=60)
        began = time.monotonic()
        groups = asyncio.run(collected(Engines(), pool))
        assert time.monotonic() - began < 20
        assert ray.get(pool.counts.remote(), timeout=60)["replaced"] == 1
    finally:
        ray.get(pool.close.remote(), timeout=60)
        ray.kill(pool)
    assert [group.position for group in groups] == [40, 41, 42]
    for group in groups:
        assert [r.sample for r in group.rollouts] == [0, 1, 2, 3]
        assert all(list(r.token_ids) == [group.position, r.sample] for r in group.rollouts)
        expected = [0.0, 1.0, np.nan if group.position == 41 else 2.0, 3.0]
        np.testing.assert_array_equal(group.rewards(), expected)
        third = "hang" if group.position == 41 else "reward 2"
        assert group.texts == ("whole reward 0", "whole reward 1", f"whole {third}", "whole reward 3"), "for the record"
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
    pool = ray.remote(PoisonedPool).options(max_restarts=-1).remote(config.Rewards(processes=1), decode)
    victim = ray.get(pool.process.remote(), timeout=60)
    losses: list[str] = []

    async def collect_and_kill() -> list[Group]:
        collecting = asyncio.ensure_future(collected(Engines(), pool, losses.append))
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


class Checks:
    """Stands in for the reward pool: everything is correct."""

    def __init__(self) -> None:
        self.judge_rollouts = SimpleNamespace(remote=self._judge)
        self.texts = SimpleNamespace(remote=self._texts)
        self.asked: list[list[SampledItem]] = []

    async def _judge(self, items: Sequence[SampledItem]) -> list[Judged]:
        self.asked.append(list(items))
        verdict = Verdict(Status.CORRECT, {"accuracy": 1.0}, 1.0)
        return [Judged(verdict, texts) for texts in await self._texts(items)]

    async def _texts(self, items: Sequence[SampledItem]) -> list[Texts]:
        return [Texts(str([int(i) for i in item.token_ids]), "") for item in items]


class LongerEngines(Engines):
    """The same, with completions of 3, 4, 5 and 7 tokens in each group."""

    def _completion(self, request: Request, version: int) -> Completion:
        made, length = super()._completion(request, version), (3, 4, 5, 7)[request.sample]
        ids, logprobs = np.zeros(length, dtype=np.int32), np.zeros(length, dtype=np.float32)
        return replace(made, token_ids=ids, logprobs=logprobs, versions=(VersionSpan(version, 0, length),))


def test_what_compares_a_group_is_added_when_it_is_complete() -> None:
    weights = {"accuracy": 1.0, "length": 2.0}
    groups = asyncio.run(collected(LongerEngines(), Checks(), weights=weights))
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
    groups = asyncio.run(collected(BrokenEngines(), Checks(), weights=weights))
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


class Asking:
    """Two turns, with [7, 8, 9] between them; `said` says what it makes of the turns."""

    def __init__(self, said: tuple[int, ...] = (7, 8, 9), spoil: Callable[[Rollout], Rollout] = lambda r: r) -> None:
        self.said, self.spoil = said, spoil

    async def rollout(self, problem: Problem, engines: Turns) -> Rollout:
        first = await engines.sample(problem.prompt_ids, max_tokens=5)
        second = await engines.sample([*problem.prompt_ids, *first.token_ids, *self.said])
        return self.spoil(Rollout.of([first, self.said, second]))


def test_an_environment_with_two_turns_becomes_one_rollout_with_exact_marks() -> None:
    engines, checks = Engines(), Checks()
    groups = asyncio.run(collected(engines, checks, environment=Asking()))
    first, second = engines.asked[:12], engines.asked[12:]
    assert [(r.position, r.sample) for r in first] == [(p, s) for p, _ in DRAWN for s in range(4)], (
        "in the order of the run"
    )
    seeds = {(p, s): completion_seed(42, "train", 0, p, s) for p, _ in DRAWN for s in range(4)}
    assert all((r.seed, r.max_tokens, r.prompt_ids) == (seeds[r.position, r.sample], 5, (1, 2)) for r in first)
    assert all(r.seed == turn_seed(seeds[r.position, r.sample], 1) != seeds[r.position, r.sample] for r in second)
    assert len({r.seed for r in engines.asked}) == 24
    for request in second:
        assert request.prompt_ids == (1, 2, request.position, request.sample, 7, 8, 9)
        assert request.max_tokens == 24 - 5, "given tokens count towards the limit"
    for group in groups:
        for rollout in group.rollouts:
            own = [group.position, rollout.sample]
            assert list(rollout.token_ids) == [*own, 7, 8, 9, *own]
            assert list(rollout.sampled) == [True] * 2 + [False] * 3 + [True] * 2
            assert list(rollout.logprobs) == [-0.5] * 2 + [0.0] * 3 + [-0.5] * 2
            assert rollout.versions == (VersionSpan(7, 0, 2), VersionSpan(7, 5, 7)) and rollout.versions_cover
    assert {item.decoded(Texts("", "")).token_count for batch in checks.asked for item in batch} == {4}
    assert len(checks.asked) < 12, "those that finish at the same moment are judged together"


def test_a_rollout_without_room_for_its_next_turn_ends_with_the_turn_before() -> None:
    engines = Engines()
    groups = asyncio.run(collected(engines, Checks(), environment=Asking(said=(7,) * 22)))
    assert len(engines.asked) == 12
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        assert list(rollout.token_ids) == [rollout.position, rollout.sample] and rollout.sampled.all()
        assert rollout.truncated and rollout.worker == 0


SPOILT: dict[str, tuple[Callable[[Rollout], Rollout], str]] = {
    "another sample": (lambda r: replace(r, sample=r.sample + 1), "is another one's"),
    "nothing sampled": (lambda r: replace(r, sampled=np.zeros(7, dtype=np.bool_)), "has no sampled token"),
    "a given token as sampled": (lambda r: replace(r, sampled=np.ones(7, dtype=np.bool_)), "of no policy version"),
    "versions of a token twice": (lambda r: replace(r, versions=r.versions[:1] + r.versions), "of no policy version"),
    "an error": (lambda r: Rollout.of([(1, 2)]), "failed with ValueError: a rollout has at least one completion"),
    "too long": (lambda r: Rollout.of([replace(completion_of(r), token_ids=np.zeros(25, np.int32),
                                               logprobs=np.zeros(25, np.float32))]), "has 25 tokens"),
}  # fmt: skip


def completion_of(rollout: Rollout) -> Completion:
    return Completion(
        rollout.position, rollout.sample, rollout.token_ids, rollout.logprobs, "stop", rollout.versions, 0
    )


@pytest.mark.parametrize("spoilt", SPOILT)
def test_an_environment_that_gives_what_would_be_trained_on_wrongly_is_named(spoilt: str) -> None:
    spoil, sentence = SPOILT[spoilt]
    with pytest.raises(RunError, match=f"environment Asking: the rollout of position 40, sample 0 .*{sentence}"):
        asyncio.run(collected(Engines(), Checks(), environment=Asking(spoil=spoil)))


class Failing:
    """One turn, after which the environment of sample 2 fails."""

    async def rollout(self, problem: Problem, engines: Turns) -> Rollout:
        rollout = Rollout.of([await engines.sample(problem.prompt_ids)])
        if rollout.sample == 2:
            raise RolloutFailed(rollout, Status.TIMEOUT, "environment: it hung")
        return rollout


def test_a_rollout_whose_environment_failed_is_not_judged_and_counted() -> None:
    checks = Checks()
    groups = asyncio.run(collected(Engines(), checks, environment=Failing()))
    assert sum(map(len, checks.asked)) == 9, "the others are judged"
    for group in groups:
        assert [v.status for v in group.verdicts] == [Status.CORRECT] * 2 + [Status.TIMEOUT] + [Status.CORRECT]
        assert group.verdicts[2].reward is None and group.verdicts[2].detail == "environment: it hung"
        np.testing.assert_array_equal(group.rewards(), [1, 1, np.nan, 1])
        assert group.texts == tuple(f"[{group.position}, {sample}]" for sample in range(4)), "recorded all the same"
    figures = step_metrics(groups)
    assert figures["timeouts"] == figures["environment_failures"] == 3 and figures["mean_turns"] == 1
    values = advantages(np.stack([group.rewards() for group in groups]), 1e-4)
    assert len(training_sequences(groups, values)) == 9
    with pytest.raises(RunError, match="3 checks timed out and 0 failed of 12"):
        check_judged(groups, 1, limit=0.2)


def test_a_group_is_sampled_judged_and_checked_with_the_settings_of_its_stage() -> None:
    stages = [{"max_completion_tokens": 5, "temperature": 0.6, "until": {"step": 3}}, {"max_completion_tokens": 24}]
    staged = make_config(Path("/nowhere"), rollout={"stages": stages}, rewards={"weights": WEIGHTS})
    engines, pool, spoilt = Engines(), Checks(), LongerEngines()

    def collector(of: Engines) -> Collector:
        return Collector(staged, of, pool, {"": SingleTurn()}, print)  # type: ignore[arg-type]

    async def both() -> list[Group]:
        return [
            await collector(engines).training_group(*DRAWN[0], StepSettings.of(staged, Changes(stage=number)))
            for number in (0, 1)
        ]

    first, second = asyncio.run(both())
    assert first.sampling == SamplingSettings(0.6, 5, 0) and second.sampling == SamplingSettings(1.0, 24, 1)
    asked = [(request.temperature, request.max_tokens) for request in engines.asked]
    assert asked == [(0.6, 5)] * 4 + [(1.0, 24)] * 4
    assert [item.max_tokens for items in pool.asked for item in items] == [5] * 4 + [24] * 4, "for lengths in rewards"
    values = advantages(np.array([[0.0, 1.0, 2.0, 3.0]] * 2), 1e-4)
    temperatures = [sequence.temperature for sequence in training_sequences([first, second], values)]
    assert temperatures == [0.6] * 4 + [1.0] * 4
    assert {one.temperature for one in training_sequences([first, second], values, tempered=False)} == {None}
    with pytest.raises(RunError, match=r"has 7 tokens \(max_completion_tokens of its stage is 5\)"):
        asyncio.run(collector(spoilt).training_group(*DRAWN[0], StepSettings.of(staged)))
    held_out = asyncio.run(collector(Engines()).group(*DRAWN[0], Sampling.evaluation(staged, 3)))
    assert held_out.sampling == SamplingSettings(1.0, 24, None), "evaluations are at full length"


def test_an_evaluation_has_its_own_limit_where_one_is_given() -> None:
    longer = make_config(Path("/nowhere"), evaluation={"hold_out": 2, "samples": 3, "max_completion_tokens": 60})
    engines = Engines()
    collector = Collector(longer, engines, Checks(), {"": SingleTurn()}, print)  # type: ignore[arg-type]
    held_out = asyncio.run(collector.group(*DRAWN[0], Sampling.evaluation(longer, 3)))
    assert held_out.sampling == SamplingSettings(1.0, 60, None)
    assert [request.max_tokens for request in engines.asked] == [60] * 3
    assert EngineSettings.of_run(longer, "model", (2,)).max_sequence_tokens == longer.rollout.max_prompt_tokens + 60
    short = make_config(Path("/nowhere"), evaluation={"hold_out": 2, "samples": 4, "max_completion_tokens": 5})
    collector = Collector(short, LongerEngines(), Checks(), {"": SingleTurn()}, print)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"has 7 tokens \(evaluation\.max_completion_tokens is 5\)"):
        asyncio.run(collector.group(*DRAWN[0], Sampling.evaluation(short, 3)))
