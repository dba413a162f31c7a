"""INT8 layers on vLLM's own CPU kernels, without an engine: the product, and the proof of a push on real packed numbers."""

from typing import Any

import pytest
import torch
import vllm.model_executor.kernels.linear.scaled_mm.cpu as cpu_kernels
from torch import nn
from vllm.model_executor.layers.quantization.online import fp8

from actors.weights import int8
from openrs_ray.weights.effect import Effect
from openrs_ray.weights.quantized import Format

ROWS, COLUMNS = 96, 64
INT8 = Format("int8", by_rows=True)


@pytest.fixture(params=["AMX", "oneDNN"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int8.Int8Linear:
    if request.param == "oneDNN":
        monkeypatch.setattr(cpu_kernels, "check_cpu_sgl_kernel", lambda *sizes: False)
    elif not torch.cpu._is_amx_tile_supported():
        pytest.skip("this CPU has no AMX")
    method = int8.Int8Linear.__new__(int8.Int8Linear)
    method.out_dtype = torch.bfloat16
    method.kernel = int8.init_int8_linear_kernel(
        is_channelwise=True, is_static_input_scheme=False, input_symmetric=True, module_name="test"
    )
    return method


def layer_of(method: int8.Int8Linear) -> Any:
    layer: Any = nn.Module()
    layer.quant_method, layer.logical_widths, layer.tp_size = method, [ROWS], 1
    layer.register_parameter("bias", nn.Parameter(torch.randn(ROWS).bfloat16(), requires_grad=False))
    return layer


def load(model: nn.Module, effect: Effect, weight: torch.Tensor, leave: bool = False) -> None:
    """Reload a layer as vLLM does: on the meta device first, then processed again."""
    layer: Any = model.layer
    before = dict(layer._parameters)
    layer.weight = nn.Parameter(torch.empty(ROWS, COLUMNS, dtype=torch.bfloat16, device="meta"), requires_grad=False)
    effect.begin()
    with effect.loading([("weight", weight), ("bias", layer.bias.data.clone())]) as _:
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(layer.bias.data.clone())
    if leave:
        layer._parameters.update(before)
        return
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer._already_called_process_weights_after_loading = False
    layer.quant_method.process_weights_after_loading(layer)


def test_the_product_is_that_of_the_rounded_weights(method: int8.Int8Linear) -> None:
    """Against float64 with plainly rounded weights; the difference is the rounding of activations."""
    torch.manual_seed(0)
    layer, weight = layer_of(method), (0.1 * torch.randn(ROWS, COLUMNS)).bfloat16()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    method.process_weights_after_loading(layer)
    x = torch.randn(7, COLUMNS).bfloat16()
    scale = weight.double().abs().amax(1, keepdim=True) / 127
    rounded = (weight.double() / scale).round() * scale
    step = x.double().abs().amax(1, keepdim=True) / 127
    exact = ((x.double() / step).round() * step) @ rounded.T + layer.bias.double()
    torch.testing.assert_close(method.apply(layer, x, layer.bias).double(), exact, atol=2e-2, rtol=1e-2)
    assert not torch.allclose(exact, x.double() @ weight.double().T + layer.bias.double(), atol=1e-3)


def test_the_proof_reads_packed_numbers(method: int8.Int8Linear) -> None:
    torch.manual_seed(0)
    model = nn.Module()
    model.layer = layer_of(method)
    effect = Effect(model, {"layer": INT8})
    weight = (0.1 * torch.randn(ROWS, COLUMNS)).bfloat16()
    for _ in range(3):
        load(model, effect, weight)
        assert effect.stale() == []
        weight = weight + (0.001 * torch.randn_like(weight.float())).bfloat16()
    load(model, effect, weight, leave=True)
    assert "weight" in effect.stale()


def test_a_scale_that_is_freed_does_not_reach_the_kernel(method: int8.Int8Linear) -> None:
    """oneDNN's kernel keeps the address of the scales; vLLM's reload puts a copy in their place and lets go of them."""
    layer = layer_of(method)
    layer.weight = nn.Parameter(torch.eye(ROWS, COLUMNS).bfloat16(), requires_grad=False)
    method.process_weights_after_loading(layer)
    x = torch.eye(4, COLUMNS).bfloat16()
    before = method.apply(layer, x)
    layer.weight_scale = nn.Parameter(layer.weight_scale.data.clone(), requires_grad=False)
    others = [torch.full((ROWS, 1), 7.0) for _ in range(2000)]  # would reuse freed memory
    assert torch.equal(method.apply(layer, x), before) and others


@pytest.mark.parametrize("rows", [1, 16, 100])
def test_fp8_numbers_are_vllms(rows: int) -> None:
    """Scales and numbers of the proof equal those of vLLM's functions for online FP8 exactly."""
    torch.manual_seed(rows)
    weight = (torch.randn(rows, 256) * torch.logspace(-4, 2, rows)[:, None]).bfloat16()
    weight[0] = 0
    format, largest = Format("fp8", by_rows=True), weight.abs().amax(1, keepdim=True)
    scale = fp8._fp8_channel_scale(largest)
    assert torch.equal(format.scale(largest), scale)
    assert torch.equal(format.numbers(weight, scale), fp8._fp8_quant_per_channel(weight, scale).float())
