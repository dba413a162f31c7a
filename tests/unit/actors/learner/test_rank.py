"""Arithmetic of a learner rank that needs no engine; tests/system/test_learner.py has the ranks themselves."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from live_memory import Live
from safetensors.torch import load_file
from tiny import make_config, save_model

from actors.learner.rank import LearnerRank
from openrs_ray.algorithm.packing import EMPTY
from openrs_ray.algorithm.policy import adapt, load_policy
from openrs_ray.cluster.learner_memory import SCORED_AT_ONCE
from openrs_ray.config.loss import Loss
from openrs_ray.errors import RunError

NORMALIZATIONS = get_args(Loss.model_fields["normalization"].annotation)
KINDS = {"constant": "dr_grpo"}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_step_in_which_every_completion_is_left_out_has_a_loss_of_weight_that_is_finite(
    tmp_path: Path, normalization: str
) -> None:
    size = {"micro_batch_sequences": 4} if normalization == "local_micro_batch" else {}
    loss = {"kind": KINDS.get(normalization, "grpo"), "normalization": normalization}
    rank = LearnerRank(make_config(tmp_path, loss=loss, learner=size), "", 0, 1, "cpu")
    assert rank._loss_weights([EMPTY, EMPTY], 0, 0, 0) == [1.0, 1.0]


def test_a_penalty_without_a_reference_is_an_error_and_not_zero(tmp_path: Path) -> None:
    """The policy itself would be compared with itself."""
    rank = LearnerRank(make_config(tmp_path), "", 0, 1, "cpu")
    with pytest.raises(RunError, match="a KL penalty needs a reference model, and none is loaded"), rank._start_model():
        pass


LARGEST_LAYER = 4 * 64 * 96
"""Bytes of the largest matrix with an adapter, in float32; the model has 14 of them."""
ADAPTED = 2 * 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
"""Bytes of all of them."""


def adapted_rank(tmp_path: Path, rank: int) -> LearnerRank:
    """One of two ranks, with adapters, as far as it needs no DeepSpeed engine."""
    config = make_config(tmp_path, learner={"lora": {"rank": 2}})
    made = LearnerRank(config, str(save_model(tmp_path / "model")), rank, 2, "cpu")
    made.policy = load_policy(made.model_path, "float32", 64)
    made._adapter_config = adapt(made.policy, config.learner.lora, 1)
    return made


def live_beside(rank: LearnerRank) -> Live:
    """Counts what is made beside the weights."""
    live = Live()
    live.leave_out(rank.policy.parameters())
    return live


def test_an_export_holds_one_merged_matrix_beside_the_copies_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines on the same GPU are awake meanwhile, and a GPU has no room for the merged model once more."""
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    first, second = adapted_rank(tmp_path, 0), adapted_rank(tmp_path, 1)
    with live_beside(first) as live:
        first.export(tmp_path / "policy")
        peak = live.restart()
    written = sum(tensor.nbytes for tensor in load_file(tmp_path / "policy" / "model.safetensors").values())
    adapters = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert written > ADAPTED > 8 * LARGEST_LAYER
    assert written < peak < written + adapters + 2 * LARGEST_LAYER
    with live_beside(second) as live:
        second.export(tmp_path / "nothing")
        peak = live.restart()
    assert peak == 0 and not (tmp_path / "nothing").exists()


def test_buckets_of_full_parameters_do_not_outlive_the_next_one(tmp_path: Path) -> None:
    rank = adapted_rank(tmp_path, 0)
    with live_beside(rank) as live:
        sizes = [sum(tensor.nbytes for tensor in tensors) for _, tensors in rank.full_parameters(2 * LARGEST_LAYER)]
        peak = live.restart()
    assert len(sizes) > 4 and max(sizes) <= 2 * LARGEST_LAYER
    assert peak < 3 * LARGEST_LAYER


def test_the_probe_is_scored_in_small_chunks_and_training_is_not(tmp_path: Path) -> None:
    """A chunk of the logits of a training step has no place beside an engine that is awake."""
    rank, rows = adapted_rank(tmp_path, 0), list[int]()
    rank.policy.head.chunk_tokens = 1000
    rank.engine = rank.policy
    prompt, completion = np.arange(3), np.arange(300) % 64
    rank.policy.head.register_forward_pre_hook(lambda head, _: rows.append(head.chunk_tokens))
    (scored,) = rank.score([(prompt, completion)], 1.0)
    assert scored.shape == (300,) and rows == [SCORED_AT_ONCE] and SCORED_AT_ONCE < 300
    assert rank.policy.head.chunk_tokens == 1000
