"""Engines in 8 bits: what vLLM is told for `rollout.quantization`."""

from typing import Any

from openrs_ray.config.quantization import FP8_ARITHMETIC, Quantization, refusal
from openrs_ray.errors import Recurring


def quantized(quantization: Quantization, capability: int | None) -> dict[str, Any]:
    """Arguments of an engine. `capability`: of its GPU, 89 for 8.9; None on a CPU. Recurring where the hardware cannot."""
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
    return weights | ({"kv_cache_dtype": "fp8"} if quantization == "fp8_kv" else {})
