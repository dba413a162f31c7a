"""Arguments of vLLM for engines in 8 bits, by compute capability, and refusals."""

from typing import Any

import pytest
from vllm.config.quantization import resolve_quantization_config
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.model_executor.layers.quantization.utils import quant_utils

from actors.rollout.quantization import quantized
from actors.weights import int8
from openrs_ray.config.quantization import Quantization
from openrs_ray.errors import Recurring


@pytest.mark.parametrize(
    ("quantization", "capability", "weights", "cache"),
    [
        ("fp8", 86, quant_utils.kFp8StaticTensorSym, None),
        ("fp8", 89, quant_utils.kFp8StaticChannelSym, None),
        ("fp8_kv", 90, quant_utils.kFp8StaticChannelSym, "fp8"),
    ],
)
def test_vllm_reads_the_formats_that_the_gpu_has(
    quantization: Quantization, capability: int, weights: Any, cache: str | None
) -> None:
    found = quantized(quantization, capability)
    understood = resolve_quantization_config(found["quantization"], found["quantization_config"])
    assert understood is not None and understood.linear is not None
    assert (understood.linear.weight, understood.moe, found.get("kv_cache_dtype")) == (weights, None, cache)


@pytest.mark.parametrize("capability", [None, 86, 90])
def test_int8_is_known_to_vllm(capability: int | None) -> None:
    name = quantized("int8", capability)["quantization"]
    assert get_quantization_config(name) is int8.Int8Config
    assert quantized("none", capability) == {}


@pytest.mark.parametrize(
    ("quantization", "capability", "mending"),
    [("fp8", None, "int8 or none"), ("fp8_kv", None, "int8 or none"), ("int8", 75, "to none"), ("int8", 100, "to fp8")],
)
def test_what_a_card_cannot_is_refused_before_an_engine_starts(
    quantization: Quantization, capability: int | None, mending: str
) -> None:
    with pytest.raises(Recurring, match=f"rollout.quantization {quantization} needs a GPU.*{mending}"):
        quantized(quantization, capability)
