"""Engines in 8 bits, and the hardware that can."""

from typing import Literal

Quantization = Literal["none", "int8", "fp8", "fp8_kv"]

FP8_ARITHMETIC = 89
"""Compute capability from which a GPU multiplies in FP8; below, its weights and cache are in FP8 only."""
_LEAST = 80
_NO_INT8 = 100
"""Capability from which vLLM's GPU kernels have no INT8."""


def refusal(quantization: Quantization, capability: int | None) -> str | None:
    """Why a GPU of this compute capability (89: 8.9), or a CPU (None), cannot, and what can be done; None where it can."""
    if quantization == "none":
        return None
    if capability is None:
        needs_gpu = f"rollout.quantization {quantization} needs a GPU: on a CPU set int8 or none"
        return needs_gpu if quantization != "int8" else None
    has = f"this one has {capability / 10:.1f}"
    if capability < _LEAST:
        return f"rollout.quantization {quantization} needs a GPU of compute capability 8.0 or more, and {has}: set it to none"
    if quantization == "int8" and capability >= _NO_INT8:
        return f"rollout.quantization int8 needs a GPU of compute capability below 10.0, and {has}: set it to fp8"
    return None
