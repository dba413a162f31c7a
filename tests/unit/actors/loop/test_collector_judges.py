"""Groups whose rewards come from a judge model: one that hangs for a completion costs its group time, and no other."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from flaky_judge import FlakyJudge
from tiny import make_config

from actors.loop.collector import Collector, Sampling
from actors.pools.messages import SampledItem
from actors.pools.reward import JudgeAccess, RewardPool
from actors.rollout.worker import Request
from openrs_ray.data.completions import Texts
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.records import Completion, Group, Problem, Status, VersionSpan
from openrs_ray.rewards.judge_model.replies import Spending

PROBLEMS = [Problem(number, f"problem {number}", (1, 2), ("1",)) for number in range(3)]
HANGS = "41/2"


class Engines:
    """Stands in for the engine pool: every completion names itself in its tokens."""

    async def sample(self, request: Request) -> Completion:
        ids = np.array([request.position, request.sample], dtype=np.int32)
        logprobs = np.full(2, -0.5, dtype=np.float32)
        return Completion(request.position, request.sample, ids, logprobs, "stop", (VersionSpan(0, 0, 2),), 0)


def decode(rollouts: Sequence[SampledItem]) -> list[Texts]:
    named = [tuple(map(int, rollout.token_ids)) for rollout in rollouts]
    return [Texts("", f"{position}/{sample} \\boxed{{{sample}}}") for position, sample in named]


def collected(
    judge: FlakyJudge, weights: dict[str, float], folder: Path, phase: str = "train", **settings: Any
) -> tuple[list[tuple[float, Group]], list[Spending]]:
    """Groups with the seconds after which each was there, and what was told of their cost."""
    section = {"model": "j", "url": judge.url, "timeout_s": 1.5, "retries": 1, "backoff_s": 0.01} | settings
    rewards = {"weights": weights, "judge": section, "processes": 1}
    config, told = make_config(Path("/nowhere"), rewards=rewards), list[Spending]()
    pool = ray.remote(RewardPool).remote(config.tasks, JudgeAccess(folder), None, decode)
    collector = Collector(config, Engines(), pool, {"": SingleTurn()}, pytest.fail, told.append)  # type: ignore[arg-type]

    async def timed(position: int, problem: Problem) -> tuple[float, Group]:
        group = await collector.group(position, problem, Sampling(phase, 0, 4, 1.0))
        return time.monotonic() - began, group

    async def all_groups() -> list[tuple[float, Group]]:
        return await asyncio.gather(*(timed(40 + number, problem) for number, problem in enumerate(PROBLEMS)))

    try:
        ray.get(pool.counts.remote(), timeout=60)
        began = time.monotonic()
        return asyncio.run(all_groups()), told
    finally:
        ray.get(pool.close.remote(), timeout=60)
        ray.kill(pool)


def scores(prompt: str, before: int) -> str:
    return "hang" if HANGS in prompt else "Score: 5"


def test_a_judge_that_hangs_for_one_completion_keeps_no_other_group_waiting(ray_session: None, tmp_path: Path) -> None:
    with FlakyJudge(scores) as judge:
        groups, told = collected(judge, {"accuracy": 1.0, "judge": 2.0}, tmp_path)
    (first, one), (late, other), (third, last) = groups
    assert late > 3.0 and late - max(first, third) > 1.4, "two deadlines of 1.5 s"
    expected = np.array([1.0, 2.0, 1.0, 1.0])  # sample 1 is right
    np.testing.assert_allclose(one.rewards(), expected)
    np.testing.assert_allclose(last.rewards(), expected)
    np.testing.assert_allclose(other.rewards(), np.where(np.arange(4) == 2, np.nan, expected))
    lost = other.verdicts[2]
    assert lost.status is Status.TIMEOUT and "after 2 requests" in lost.detail and lost.rewards == {}
    final = max(told, key=lambda spending: spending.requests + spending.failed)
    assert (final.requests, final.failed, final.unjudged) == (11, 2, 1)


def by_sample(prompt: str, before: int) -> str:
    """The highest sample is the best, wherever it is shown."""
    shown = [int(part.partition("/")[2].split()[0]) for part in prompt.split("Response ")[1:]]
    return json.dumps(sorted(range(1, len(shown) + 1), key=lambda number: -shown[number - 1]))


def hangs_for(group: int) -> Callable[[str, int], str]:
    return lambda prompt, before: "hang" if f"problem {group}" in prompt else by_sample(prompt, before)


def test_a_group_that_cannot_be_compared_is_not_judged_and_the_others_are(ray_session: None, tmp_path: Path) -> None:
    template = "{problem}\n{completions}"
    weights = {"accuracy": 3.0, "judge_relative": 1.0}
    with FlakyJudge(hangs_for(1)) as judge:
        groups, _ = collected(judge, weights, tmp_path, relative_template=template)
    (first, one), (late, other), (third, last) = groups
    assert late > 3.0 and late - max(first, third) > 1.4
    for group in (one, last):
        np.testing.assert_allclose(group.rewards(), [0.0, 3.0 + 1 / 3, 2 / 3, 1.0])
    assert np.isnan(other.rewards()).all() and {verdict.status for verdict in other.verdicts} == {Status.TIMEOUT}


def test_an_evaluation_asks_no_judge(ray_session: None, tmp_path: Path) -> None:
    with FlakyJudge(scores) as judge:
        groups, told = collected(judge, {"accuracy": 1.0, "judge": 2.0}, tmp_path, phase="evaluation")
        assert judge.requests == 0 and told == []
    for _, group in groups:
        np.testing.assert_allclose(group.rewards(), [0.0, 1.0, 0.0, 0.0])
