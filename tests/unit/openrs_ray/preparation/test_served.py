"""Models that engines are to serve."""

from pathlib import Path
from typing import Any

import pytest
from tiny import write_model

from openrs_ray.config.placement import Placement
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import Model
from openrs_ray.errors import UserError
from openrs_ray.preparation.served import check_served


@pytest.mark.parametrize(
    ("changes", "gpus", "sentence"),
    [
        ({}, 8, "must divide the 12 attention heads of"),
        ({}, 3, "must divide, or be a multiple of, the 2 key/value heads of"),
        ({"num_key_value_heads": 6, "vocab_size": 192}, 3, None),
        ({"vocab_size": 192}, 6, None),
    ],
)
def test_a_model_that_vllm_cannot_split_over_an_engines_gpus_is_refused(
    tmp_path: Path, changes: dict[str, Any], gpus: int, sentence: str | None
) -> None:
    """Afterwards its weights are looked for, of which there are none."""
    folder = write_model(
        tmp_path / "model", **{"hidden_size": 384, "num_attention_heads": 12, "num_key_value_heads": 2} | changes
    )
    said = rf"^engine.tensor_parallel \({gpus}\) {sentence} {folder}$" if sentence else "weights|safetensors"
    with pytest.raises(UserError, match=said) as refused:
        check_served(
            Model(path=str(folder)), str(folder), Engine(tensor_parallel=gpus), Placement(device="cpu"), 64, "tokens"
        )
    assert sentence or "tensor_parallel" not in str(refused.value)
