"""Checks that hardware has kernels for `rollout.quantization`."""

from typing import Literal

Quantization = Literal["none", "int8", "fp8", "fp8_kv"]

FP8_ARITHMETIC = 89
"""Compute capability from which a GPU multiplies in FP8; below, FP8 only saves memory.

Triton's attention takes a cache in FP8 from there on, too.
"""
_LEAST = 80
_NO_INT8 = 100
"""Compute capability from which vLLM has no INT8 kernels."""


def refusal(quantization: Quantization, capability: int | None) -> str | None:
    """The refusal for a GPU of this compute capability (89: 8.9) or a CPU (None), with its mending; None if it is supported."""
    if quantization == "none":
        return None
    if capability is None:
        needs_gpu = f"rollout.quantization {quantization} needs a GPU: on a CPU set int8 or none"
        return needs_gpu if quantization != "int8" else None
    has = f"this one has {capability / 10:.1f}"
    if capability < _LEAST:
        return f"rollout.quantization {quantization} needs a GPU of compute capability 8.0 or more, and {has}: set it to none"
    if quantization == "fp8_kv" and capability < FP8_ARITHMETIC:
        return f"rollout.quantization fp8_kv needs a GPU of compute capability 8.9 or more, and {has}: set it to fp8"
    if quantization == "int8" and capability >= _NO_INT8:
        return f"rollout.quantization int8 needs a GPU of compute capability below 10.0, and {has}: set it to fp8"
    return None
