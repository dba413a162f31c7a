"""A model's shape: over how many GPUs an engine can split it, and which adapters it can have."""

import re
from typing import Any

import pytest
from planned import paper_shape
from transformers import LlamaConfig, MixtralConfig, PretrainedConfig
from vllm.distributed.utils import divide

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.learner import Lora
from openrs_ray.errors import UserError
from openrs_ray.models.lora import linear_layers
from openrs_ray.models.pretrained import empty_model

SMALL: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 150,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "gpus", "rule"),
    [
        ({}, (1, 2, 4, 12), None),
        ({}, (5, 8, 24), "12 attention heads"),
        ({}, (3, 6), "the 4 key/value heads"),
        ({"num_key_value_heads": 1}, (1, 2, 3, 4, 6, 12), None),
        ({"num_key_value_heads": 12, "intermediate_size": 160}, (3, 6, 12), r"intermediate size \(160\)"),
        ({"num_key_value_heads": 12, "vocab_size": 129}, (1, 2, 3, 4, 6, 12), None),
        ({"num_key_value_heads": 12, "vocab_size": 128}, (3, 6, 12), r"vocabulary as vLLM fills it up \(128\)"),
    ],
)
def test_what_vllm_cannot_split_is_named(changes: dict[str, Any], gpus: tuple[int, ...], rule: str | None) -> None:
    shape = ModelShape.of(LlamaConfig(**SMALL | changes))
    for count in gpus:
        found = shape.broken_split(count)
        assert (found is None) if rule is None else (found and re.search(rule, found)), count


def test_a_model_is_split_as_vllm_divides_it() -> None:
    """By its own division, for the paper's model: 12 and 2 heads, 8960 in its MLPs, 151936 tokens, a multiple of 64."""
    shape = paper_shape()
    for gpus in range(1, 13):
        try:
            few, many = sorted((2, gpus))
            for whole, parts in ((12, gpus), (many, few), (8960, gpus), (151936, gpus)):
                divide(whole, parts)
            can = True
        except AssertionError:
            can = False
        assert (shape.broken_split(gpus) is None) == can == (gpus in (1, 2, 4)), gpus


@pytest.mark.parametrize(("config", "most"), [
    (LlamaConfig(**SMALL), 32), (LlamaConfig(**SMALL | {"num_key_value_heads": 12}), 96), (MixtralConfig(**SMALL), 0),
])  # fmt: skip
def test_a_shape_knows_the_largest_rank_of_adapters(config: PretrainedConfig, most: int) -> None:
    assert ModelShape.of(config).most_rank == most
    if most:
        linear_layers(empty_model(config), Lora(rank=most))
    with pytest.raises(UserError):
        linear_layers(empty_model(config), Lora(rank=most + 1))
