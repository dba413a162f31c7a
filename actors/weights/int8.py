"""INT8 for the linear layers of vLLM's engines, made while they load: vLLM 0.32 quantizes only experts so (and FP8 everything).

Weights with a scale for each output row, activations with one for each token, both symmetric, on vLLM's own INT8 kernels: CUTLASS
on GPUs, AMX or oneDNN on CPUs. Importing this module makes `quantization="openrs_int8"` known; engine processes import it with
their configuration, which holds an `Int8Config`.
"""

from typing import Any

import torch
from vllm.config.quantization import QuantizationConfigArgs
from vllm.model_executor.kernels.linear import init_int8_linear_kernel
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig
from vllm.model_executor.layers.quantization.online.fp8 import OnlineLinearBase, _is_tp_sharded
from vllm.model_executor.layers.quantization.utils.quant_utils import amax_for_tp_weight_quant, weight_amax
from vllm.model_executor.utils import replace_parameter
from vllm.utils.torch_utils import set_default_torch_dtype

NAME = "openrs_int8"
_MOST = 127
_CHUNK_ELEMENTS = 1 << 24  # quantized at once: bounds the float32 temporaries to 64 MiB


class Int8Linear(OnlineLinearBase):
    """Receives weights in the model's format, as vLLM's online FP8 methods do, and holds them in INT8."""

    activation_quant_key = None

    def create_weights(self, layer: torch.nn.Module, *sizes: Any, **attributes: Any) -> None:
        super().create_weights(layer, *sizes, **attributes)
        self.kernel = init_int8_linear_kernel(
            is_channelwise=True, is_static_input_scheme=False, input_symmetric=True, module_name=type(self).__name__
        )

    def process_weights_after_loading(self, layer: Any) -> None:
        if getattr(layer, "_already_called_process_weights_after_loading", False):
            return
        layer.input_scale = layer.input_zero_point = None
        numbers, self._scale = quantized(layer.weight, _is_tp_sharded(layer, reduces_output_dim=False))
        replace_parameter(layer, "weight", numbers)
        # oneDNN's kernel reads the scale where it lies now; a reload copies it elsewhere, so it is kept here.
        replace_parameter(layer, "weight_scale", self._scale)
        with set_default_torch_dtype(self.out_dtype):  # in which oneDNN's kernel answers
            self.kernel.process_weights_after_loading(layer)
        layer._already_called_process_weights_after_loading = True

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        product: torch.Tensor = self.kernel.apply_weights(layer, x, bias)
        return product


def quantized(weight: torch.Tensor, is_sharded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [rows, columns], and float32 [rows, 1] to multiply it with. Ranks that share rows share their scales."""
    largest = amax_for_tp_weight_quant(weight_amax(weight, dim=-1, keepdim=True).float(), is_sharded)
    scale = (largest / torch.full_like(largest, _MOST)).clamp_min(torch.finfo(torch.float32).tiny)
    numbers = torch.empty_like(weight, dtype=torch.int8)
    step = max(1, _CHUNK_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        numbers[rows] = (weight[rows] / scale[rows]).round_().clamp_(-_MOST, _MOST)
    return numbers, scale


class Int8Config(OnlineQuantizationConfig):
    """All linear layers; embedding and head stay as they are."""

    def __init__(self) -> None:
        super().__init__(QuantizationConfigArgs(targets={}))

    @classmethod
    def get_name(cls) -> str:
        return NAME

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        return Int8Linear() if isinstance(layer, LinearBase) else super().get_quant_method(layer, prefix)


register_quantization_config(NAME)(Int8Config)
