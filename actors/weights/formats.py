"""Formats of the layers of a live vLLM model that hold their weight in 8 bits."""

import torch
from vllm.model_executor.layers.quantization.online.fp8 import Fp8PerTensorOnlineLinearMethod, Fp8PtpcOnlineLinearMethod

from actors.weights.int8 import Int8Linear
from openrs_ray.weights.quantized import Format

_FORMATS: dict[type, Format] = {
    Int8Linear: Format("int8", by_rows=True),
    Fp8PtpcOnlineLinearMethod: Format("fp8", by_rows=True),
    Fp8PerTensorOnlineLinearMethod: Format("fp8", by_rows=False),
}


def layer_formats(model: torch.nn.Module) -> dict[str, Format]:
    """Formats by module name."""
    methods = {name: type(getattr(module, "quant_method", None)) for name, module in model.named_modules()}
    return {name: _FORMATS[method] for name, method in methods.items() if method in _FORMATS}
