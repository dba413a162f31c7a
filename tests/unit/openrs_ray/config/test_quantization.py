"""Recipes with engines in 8 bits that are refused, each in a sentence that says what to set."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import make_config

from openrs_ray.algorithm.step_metrics import check_mismatch
from openrs_ray.errors import RunError, UserError
from openrs_ray.preparation.prepared import check_model

GOOD: dict[str, dict[str, Any]] = {
    "model": {"dtype": "bfloat16"}, "rollout": {"quantization": "int8"}, "loss": {"correction": "truncated"},
}  # fmt: skip


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "tis"},
        {"kind": "cispo"},
        {"kind": "sapo"},
        {"correction": "sequence_mask"},
        {"correction": "token_mask"},
    ],
)
def test_a_loss_that_corrects_will_do(tmp_path: Path, loss: dict[str, Any]) -> None:
    assert make_config(tmp_path, **GOOD | {"loss": loss}).rollout.quantization == "int8"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": {}}, "set loss.correction truncated or sequence_mask, or loss.kind tis or cispo"),
        ({"loss": {"kind": "gspo"}}, "set loss.correction truncated"),
        ({"loss": {"correction": "truncated", "old_policy": "current"}}, "needs loss.old_policy sampler"),
        ({"loss": {"correction": "token_mask", "old_policy": "current"}}, "int8 needs loss.old_policy sampler"),
        ({"model": {"dtype": "float32"}}, "needs model.dtype bfloat16"),
        ({"rollout": {"quantization": "fp8"}}, "fp8 needs a GPU: on a CPU set int8 or none"),
        ({"rollout": {"quantization": "fp8_kv"}}, "fp8_kv needs a GPU: on a CPU set int8 or none"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make_config(tmp_path, **GOOD | changes)


def test_fp8_without_a_gpu_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `auto` means a CPU; a plan for a card elsewhere goes on to look at the model, which is none here."""
    monkeypatch.setattr("torch.version.cuda", None)
    changes, nowhere = GOOD | {"rollout": {"quantization": "fp8_kv"}}, str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="fp8_kv needs a GPU: on a CPU set int8 or none"):
        check_model(make_config(tmp_path, **changes, placement={"device": "auto"}), nowhere)
    with pytest.raises(UserError, match="nowhere"):
        check_model(make_config(tmp_path, **changes, placement={"device": "auto", "gpu_memory_gib": 48}), nowhere)


def test_a_divergence_past_the_limit_names_the_8_bits() -> None:
    check_mismatch(0.04, 3, 0.05, "int8")
    with pytest.raises(RunError, match="int8 is too coarse for this model"):
        check_mismatch(0.06, 3, 0.05, "int8")
    with pytest.raises(RunError, match=r"push.max_mismatch_kl 0.05\): the engines do not sample") as plain:
        check_mismatch(float("nan"), 3, 0.05)
    assert "quantization" not in str(plain.value)
