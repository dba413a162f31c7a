"""Arguments of vLLM for engines in 8 bits, by compute capability, and refusals."""

from typing import Any

import pytest
from vllm.config.attention import AttentionConfig
from vllm.config.quantization import resolve_quantization_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.model_executor.layers.quantization.utils import quant_utils
from vllm.v1.attention.backends.registry import AttentionBackendEnum

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


@pytest.mark.parametrize(("capability", "chosen"), [(89, True), (90, False), (100, False), (120, True), (121, True)])
def test_attention_over_an_fp8_cache_needs_no_cuda_toolkit(capability: int, chosen: bool) -> None:
    """vLLM's Triton backend takes the place of FlashInfer, which would be compiled."""
    found = EngineArgs(model="none", **quantized("fp8_kv", capability))
    backend = AttentionConfig.validate_backend_before(found.attention_backend)
    assert (backend is AttentionBackendEnum.TRITON_ATTN) == chosen and (backend is None) != chosen
    assert AttentionBackendEnum.TRITON_ATTN.get_class().supports_kv_cache_dtype(found.kv_cache_dtype)
    assert "attention_backend" not in quantized("fp8", capability)


@pytest.mark.parametrize("capability", [None, 86, 90])
def test_int8_is_known_to_vllm(capability: int | None) -> None:
    name = quantized("int8", capability)["quantization"]
    assert get_quantization_config(name) is int8.Int8Config
    assert quantized("none", capability) == {}


@pytest.mark.parametrize(
    ("quantization", "capability", "mending"),
    [
        ("fp8", None, "int8 or none"),
        ("fp8_kv", None, "int8 or none"),
        ("int8", 75, "to none"),
        ("int8", 100, "to fp8"),
        ("fp8_kv", 86, "8.9 or more, and this one has 8.6: set it to fp8"),
        ("fp8_kv", 75, "to none"),
    ],
)
def test_what_a_card_cannot_is_refused_before_an_engine_starts(
    quantization: Quantization, capability: int | None, mending: str
) -> None:
    with pytest.raises(Recurring, match=f"rollout.quantization {quantization} needs a GPU.*{mending}"):
        quantized(quantization, capability)
