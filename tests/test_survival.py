"""Rollout workers that die or stall: the others go on with what was theirs, and they come back with the present weights."""

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from stalling_engines import SlowWorker, StallingWorker
from system import judged_group
from test_push import PROBLEMS, System, build
from tiny import naive_logprobs, naive_model

from actors.rollout import Request
from openrs_ray.errors import RunError
from openrs_ray.samples import Completion

pytestmark = [pytest.mark.cpu_engine, pytest.mark.timeout(600)]
TWO = {"placement": {"num_rollout_gpus": 2}}


def requests(samples: int = 4) -> list[Request]:
    return [Request(p.index, s, p.prompt_ids, 100 * p.index + s, 1.0, 24) for p in PROBLEMS for s in range(samples)]


def learn(system: System, version: int, completions: list[Completion]) -> None:
    """A step that changes the weights."""
    groups = [judged_group(p.index, p, [c for c in completions if c.position == p.index], version) for p in PROBLEMS]
    assert system.run(system.learners.train(groups, version)).metrics["grad_norm"] > 0


def assert_sampled_from(system: System, completions: list[Completion], version: int, folder: Path) -> None:
    """All of them, once, by the weights that the learner has."""
    assert sorted((c.position, c.sample) for c in completions) == [(r.position, r.sample) for r in requests()]
    system.run(system.learners.export(folder))
    reference = naive_model(folder)
    for c in completions:
        assert {span.version for span in c.versions} == {version}
        expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids)
        np.testing.assert_allclose(c.logprobs, expected.detach().numpy(), atol=1e-3)


def until_started(system: System, workers: list[int]) -> None:
    async def wait() -> None:
        while system.workers.alive != workers:
            await asyncio.sleep(0.1)

    system.run(wait())


def process(system: System, worker: int) -> psutil.Process:
    """The worker's actor process; on a CPU its engine is a child of it."""
    place = system.workers._members[worker].process
    assert place is not None
    return psutil.Process(place[1])


@pytest.mark.parametrize("whole_actor", [True, False])
def test_what_a_killed_worker_had_in_hand_is_sampled_by_the_other(
    ray_session: None, tmp_path: Path, whole_actor: bool
) -> None:
    losses: list[str] = []
    system = build(tmp_path, False, SlowWorker, report=losses.append, learner={"learning_rate": 3e-3}, **TWO)
    try:
        system.run(system.push.push(0))
        family = process(system, 1).children(recursive=True)
        engine = next(child for child in family if "EngineCore" in " ".join(child.cmdline()))
        victim = process(system, 1) if whole_actor else engine

        async def sample_and_kill() -> list[Completion]:
            found: list[Completion] = []
            async for batch in system.workers.generate(requests(), 0):
                if victim.is_running() and not found:
                    victim.kill()
                found += batch
            return found

        completions = system.run(sample_and_kill())
        assert {c.worker for c in completions} == {0}
        assert_sampled_from(system, completions, 0, tmp_path / "policy-0")
        assert len(losses) == 1 and losses[0].startswith("rollout worker 1 is lost")

        learn(system, 1, completions)
        until_started(system, [0, 1])
        assert system.workers.serving == [0], "it serves when a push has reached it, not before"
        system.run(system.push.push(1))
        assert system.workers.serving == [0, 1]
        completions = system.run(system.sample(1, 1.0))
        assert {c.worker for c in completions} == {0, 1}
        assert_sampled_from(system, completions, 1, tmp_path / "policy-1")
    finally:
        system.close()


def test_an_engine_stopped_in_the_middle_of_a_push_holds_up_nobody(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "stall-once"
    mark.touch()
    losses: list[str] = []
    deadline_s = 20
    system = build(
        tmp_path, False, StallingWorker, report=losses.append, environment={"STALL_ONCE": str(mark)}, vocabulary=6000,
        push={"deadline_s": deadline_s}, learner={"learning_rate": 3e-3}, **TWO,
    )  # fmt: skip
    try:
        system.run(system.push.push(0))
        learn(system, 1, system.run(system.sample(0, 1.0)))
        began = time.monotonic()
        system.run(system.push.push(1))
        assert time.monotonic() - began < 2 * deadline_s
        assert not mark.exists() and len(losses) == 1
        (survivor,) = system.workers.serving
        completions = system.run(system.sample(1, 1.0))
        assert {c.worker for c in completions} == {survivor}
        assert_sampled_from(system, completions, 1, tmp_path / "policy-1")
        learn(system, 2, completions)
        until_started(system, [0, 1])
        system.run(system.push.push(2))
        assert system.workers.serving == [0, 1]
        assert_sampled_from(system, system.run(system.sample(2, 1.0)), 2, tmp_path / "policy-2")
    finally:
        system.close()


def test_the_only_worker_dies_and_the_step_goes_on_when_it_is_back(ray_session: None, tmp_path: Path) -> None:
    system = build(tmp_path, True, learner={"learning_rate": 3e-3})
    try:
        system.run(system.push.push(0))
        learn(system, 1, system.run(system.sample(0, 1.0)))
        system.run(system.push.push(1))
        system.workers.revive = lambda: system.push.push(system.push.version)
        os.kill(process(system, 0).pid, signal.SIGKILL)
        assert_sampled_from(system, system.run(system.sample(1, 1.0)), 1, tmp_path / "policy-1")
    finally:
        system.close()


def test_a_worker_that_never_comes_to_serve_ends_the_run(ray_session: None, tmp_path: Path) -> None:
    system = build(tmp_path, False)
    try:
        for _ in range(2):
            system.run(_lose(system))
            until_started(system, [0])
        with pytest.raises(
            RunError, match="rollout worker 0 was lost 3 times without having served, last because: again"
        ):
            system.run(_lose(system))
    finally:
        system.close()


async def _lose(system: System) -> None:
    system.workers.lost(0, "again")
