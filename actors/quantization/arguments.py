"""Engines in 8 bits: what vLLM is told for `rollout.quantization`, and where it is refused."""

from typing import Any

from openrs_ray.config.rollout import Quantization
from openrs_ray.errors import Recurring

_FP8_ARITHMETIC = 89
"""Compute capability from which a GPU multiplies in FP8; below, its weights and cache are in FP8 only."""
_LEAST = 80
_NO_INT8 = 100
"""Capability from which vLLM's GPU kernels have no INT8."""


def engine_arguments(quantization: Quantization, capability: int | None) -> dict[str, Any]:
    """Of vLLM's engine. `capability`: of the GPU, 89 for 8.9; None on a CPU. Recurring where the hardware cannot."""
    if quantization == "none":
        return {}
    if reason := refusal(quantization, capability):
        raise Recurring(reason)
    if quantization == "int8":
        from actors.quantization.int8 import NAME  # makes the name known to vLLM

        return {"quantization": NAME}
    by_rows = capability is not None and capability >= _FP8_ARITHMETIC
    linear = "fp8_per_channel_static" if by_rows else "fp8_per_tensor_static"
    weights = {"quantization": "online", "quantization_config": {"linear": {"weight": linear}}}
    return weights | ({"kv_cache_dtype": "fp8"} if quantization == "fp8_kv" else {})


def refusal(quantization: Quantization, capability: int | None) -> str | None:
    """Why such a GPU, or a CPU (None), cannot, and what can be done; None where it can."""
    fp8 = quantization in ("fp8", "fp8_kv")
    if capability is None:
        return f"rollout.quantization {quantization} needs a GPU: use int8 or none on a CPU" if fp8 else None
    has = f"this GPU has {capability / 10:.1f}"
    if capability < _LEAST:
        return f"rollout.quantization {quantization} needs a GPU of compute capability 8.0, and {has}: use none"
    if quantization == "int8" and capability >= _NO_INT8:
        return f"rollout.quantization int8 needs a GPU of compute capability below 10.0, and {has}: use fp8"
    return None
