"""An engine in INT8 on real actors: quantized anew at each push, off by its rounding only; a layer left behind is seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from half_quantized import LEFT, LEFT_PUSH, HalfWorker
from push_system import PROBLEMS, System, build
from system import judged_group
from tiny import naive_logprobs, naive_model

from openrs_ray.errors import RunError
from openrs_ray.records import Completion

LIMIT = 0.05


def reference(folder: Path, completions: Sequence[Completion], in_int8: bool) -> np.ndarray:
    """Log-probabilities of the tokens by float64 transformers, with linear layers as they are or rounded to INT8."""
    model = naive_model(folder)
    for module in model.model.modules() if in_int8 else ():
        if isinstance(module, torch.nn.Linear):
            step = module.weight.data.abs().amax(1, keepdim=True) / 127
            module.weight.data = (module.weight.data / step).round() * step
    each = [naive_logprobs(model, PROBLEMS[c.position].prompt_ids, c.token_ids) for c in completions]
    return torch.cat(each).detach().numpy()


def learn(system: System, version: int, completions: list[Completion]) -> None:
    groups = [judged_group(p.index, p, [c for c in completions if c.position == p.index], version) for p in PROBLEMS]
    metrics = system.run(system.learners.train(groups, version)).metrics
    assert 0 < metrics["mismatch_kl"] < LIMIT


@pytest.mark.cpu_engine
@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.nightly)]
)
def test_an_int8_engine_follows_the_learner(ray_session: None, tmp_path: Path, workers: int) -> None:
    """With two workers, the rows of a layer that is split by columns share one scale."""
    system = build(
        tmp_path, True, HalfWorker,
        model={"dtype": "bfloat16"}, run={"steps": 100},
        rollout={"quantization": "int8"}, loss={"correction": "truncated"},
        placement={"num_rollout_gpus": workers}, engine={"tensor_parallel": workers},
        learner={"learning_rate": 3e-3, "warmup_share": 0}, push={"probe_every": 1, "probe_tolerance": LIMIT},
    )  # fmt: skip
    try:
        apart: list[dict[bool, float]] = []
        for version in range(LEFT_PUSH - 1):
            report = system.run(system.push.push(version))
            assert report.probe_difference is not None and 1e-4 < report.probe_difference < LIMIT
            completions = system.run(system.sample(version, 1.0))
            folder = tmp_path / f"policy-{version}"
            system.run(system.learners.export(folder))
            engine = np.concatenate([c.logprobs for c in completions])
            off = {kind: np.abs(engine - reference(folder, completions, kind)).mean() for kind in (True, False)}
            apart.append(off)
            assert max(off.values()) < LIMIT
            learn(system, version + 1, completions)
        rounded, plain = (np.mean([off[in_int8] for off in apart]) for in_int8 in (True, False))
        assert rounded < plain, "its weights are those that were rounded"
        with pytest.raises(RunError, match=rf"did not take effect on .*still have other values \({LEFT}.weight"):
            system.run(system.push.push(LEFT_PUSH - 1))
    finally:
        system.close()
