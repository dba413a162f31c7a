"""Settings that make the learner smaller, on a GPU: the steps are those of the learner without them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_config, make_sequences, save_model

from actors.learner.rank import LearnerRank
from openrs_ray.algorithm.packing import split

pytestmark = pytest.mark.gpu


def trained(tmp_path: Path, **learner: Any) -> tuple[LearnerRank, list[dict[str, float]], dict[str, torch.Tensor]]:
    """Two steps on a GPU; float32 weights by name."""
    from deepspeed.utils import safe_get_full_fp32_param

    changes = {"learner": {"learning_rate": 1e-2, **learner}, "model": {"dtype": "bfloat16"}, "loss": {"kl_beta": 0.1}}
    made = LearnerRank(make_config(tmp_path, **changes), str(tmp_path / "model"), 0, 1, "cuda:0")
    made.start(str(tmp_path / "ranks"), "a token")
    metrics = []
    for step in (1, 2):
        sequences = make_sequences(9, seed=step)
        tokens = sum(sequence.sampled_tokens for sequence in sequences)
        metrics.append(made.train_step(split(sequences, 1, micro_batch_tokens=64)[0], tokens, step))
    weights = {name: safe_get_full_fp32_param(p).clone() for name, p in made.policy.model.named_parameters()}
    return made, metrics, weights


def test_less_memory_gives_the_same_steps(tmp_path: Path) -> None:
    """Closely: a GPU's attention sums in no fixed order, and Adam magnifies rounding."""
    save_model(tmp_path / "model", tied=True)
    checkpointed = {"gradient_checkpointing": True}
    _, expected, weights = trained(tmp_path, **checkpointed)
    most = 0.01 * len(expected) * sum(weight.numel() for weight in weights.values()) ** 0.5

    def check(metrics: list[dict[str, float]], other: dict[str, torch.Tensor]) -> None:
        for name in ("loss", "grad_norm", "kl"):
            assert metrics[-1][name] == pytest.approx(expected[-1][name], rel=0.05), name
        assert sum((other[name] - weights[name]).norm() ** 2 for name in weights) ** 0.5 < 0.1 * most

    learner, *found = trained(tmp_path, offload_reference=True, offload_activations=True)
    check(*found)
    assert all(parameter.is_pinned() for parameter in learner.reference.policy.parameters())

    learner, *found = trained(tmp_path, optimizer="adamw_offload", **checkpointed)
    check(*found)
    states = learner.engine.optimizer.optimizer.state.values()
    assert {state["exp_avg"].device.type for state in states} == {"cpu"}

    learner, *found = trained(tmp_path, optimizer="adamw_8bit", **checkpointed)
    check(*found)
    states = learner.engine.optimizer.optimizer.state.values()
    assert {(state["state1"].device.type, state["state1"].dtype) for state in states} == {("cuda", torch.uint8)}
