"""The weight push on one real GPU: by CUDA IPC, by NCCL between two processes, and to engines that slept."""

from pathlib import Path

import numpy as np
import pytest
from push_system import PROBLEMS, System, build
from stalling_engines import StallingWorker
from system import judged_group
from tiny import naive_logprobs, naive_model

from actors.cluster.placement import Placement, reserve
from launch.performance.push import nccl_on_one_gpu
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Group

pytestmark = pytest.mark.gpu


def on_gpu(config: RunConfig) -> Placement:
    return reserve(plan_layout(config, "gpu"), config.placement.wait_s)


@pytest.mark.parametrize(("transport", "sleeps"), [("ipc", False), ("ipc", True), ("nccl", False)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.timeout(600)
def test_engines_hold_the_learners_weights(
    ray_session: None, tmp_path: Path, tied: bool, transport: str, sleeps: bool
) -> None:
    """Log-probabilities of what the engine samples, after every push, against float64 on what the learner exports."""
    system = build(
        tmp_path,
        tied,
        place=(lambda config: nccl_on_one_gpu(on_gpu(config))) if transport == "nccl" else on_gpu,
        model={"dtype": "bfloat16"},
        learner={"learning_rate": 3e-3},
        rollout={"sleep_while_learning": sleeps},
        engine={"gpu_memory_fraction": 0.3, "enforce_eager": True},
        placement={"device": "gpu", "colocated": True},
        push={"probe_tolerance": 0.05},
    )
    try:
        assert system.placement.layout.transport == transport
        previous: dict[str, np.ndarray] = {}
        for version in range(3):
            report = system.run(system.push.push(version))
            assert report.probe_difference is not None
            export = tmp_path / f"policy-{version}"
            system.run(system.learners.export(export))
            reference = naive_model(export)
            completions = system.run(system.sample(version, 0.7))
            for c in completions:
                expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids, 0.7)
                assert np.abs(c.logprobs - expected.detach().numpy()).mean() < 0.1
            weights = {name: p.detach().numpy() for name, p in reference.named_parameters()}
            assert not previous or any((weights[name] != previous[name]).any() for name in weights)
            previous = weights
            groups = [
                judged_group(p.index, p, [c for c in completions if c.position == p.index], version) for p in PROBLEMS
            ]
            system.run(learn(system, groups, version + 1))
    finally:
        system.close()


async def learn(system: System, groups: list[Group], step: int) -> None:
    """As the loop does: engines that share the learner's GPU and sleep give it their memory meanwhile."""
    async with system.workers.aside():
        await system.learners.train(groups, step)
        await system.learners.release_memory()


@pytest.mark.timeout(600)
def test_an_engine_stopped_in_the_middle_of_an_nccl_push_is_replaced(ray_session: None, tmp_path: Path) -> None:
    """The only engine: the push goes on to the one that starts in its place, and the learner's GPU is free of the broken one."""
    mark = tmp_path / "stall-once"
    mark.touch()
    losses: list[str] = []
    system = build(
        tmp_path,
        False,
        StallingWorker,
        place=lambda config: nccl_on_one_gpu(on_gpu(config)),
        report=losses.append,
        environment={"STALL_ONCE": str(mark)},
        vocabulary=6000,
        model={"dtype": "bfloat16"},
        learner={"learning_rate": 3e-3},
        engine={"gpu_memory_fraction": 0.3, "enforce_eager": True},
        placement={"device": "gpu", "colocated": True},
        push={"probe_tolerance": 0.05, "deadline_s": 60},
    )
    try:
        system.run(system.push.push(0))
        completions = system.run(system.sample(0, 1.0))
        groups = [judged_group(p.index, p, [c for c in completions if c.position == p.index], 0) for p in PROBLEMS]
        system.run(system.learners.train(groups, 1))
        report = system.run(system.push.push(1))
        assert not mark.exists() and len(losses) == 1
        assert report.probe_difference is not None and report.probe_difference < 0.05
        assert {span.version for c in system.run(system.sample(1, 1.0)) for span in c.versions} == {1}
        assert system.run(system.learners.train(groups, 2)).metrics["grad_norm"] > 0
    finally:
        system.close()
