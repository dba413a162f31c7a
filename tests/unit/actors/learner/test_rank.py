"""Arithmetic of a learner rank that needs no engine; tests/system/test_learner.py has the ranks themselves."""

from pathlib import Path
from typing import get_args

import pytest
from tiny import make_config

from actors.learner.rank import LearnerRank
from openrs_ray.algorithm.packing import EMPTY
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
