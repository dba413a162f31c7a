"""Engine arguments of vLLM for `rollout.quantization`."""

from typing import Any

from openrs_ray.config.quantization import FP8_ARITHMETIC, Quantization, refusal
from openrs_ray.errors import Recurring

_OWN_CHOICE = (9, 10)
"""Major compute capabilities where vLLM chooses the attention over an FP8 cache."""


def quantized(quantization: Quantization, capability: int | None) -> dict[str, Any]:
    """Arguments of an engine. `capability`: its GPU's, 89 for 8.9; None on a CPU. Recurring if the hardware cannot do it."""
    if quantization == "none":
        return {}
    if reason := refusal(quantization, capability):
        raise Recurring(reason)
    if quantization == "int8":
        from actors.weights.int8 import NAME  # makes the name known to vLLM

        return {"quantization": NAME}
    by_rows = capability is not None and capability >= FP8_ARITHMETIC
    linear = "fp8_per_channel_static" if by_rows else "fp8_per_tensor_static"
    weights = {"quantization": "online", "quantization_config": {"linear": {"weight": linear}}}
    return weights | (_quantized_cache(capability) if quantization == "fp8_kv" else {})


def _quantized_cache(capability: int | None) -> dict[str, Any]:
    # Where FlashAttention does not take the cache, vLLM would choose FlashInfer, which is compiled with a CUDA toolkit.
    own = capability is not None and capability // 10 in _OWN_CHOICE
    return {"kv_cache_dtype": "fp8"} | ({} if own else {"attention_backend": "TRITON_ATTN"})
