"""The proof of a push for layers in 8 bits, on modules that load and quantize as vLLM's do: fused, sharded. No engine."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openrs_ray.weights.effect import Effect
from openrs_ray.weights.quantized import Format

RANK, WIDTH = 1, 32
SHAPES = {"qk": (16, WIDTH), "o": (WIDTH, 16)}
FORMATS = {
    "int8": Format("int8", by_rows=True),
    "fp8 by rows": Format("fp8", by_rows=True),
    "fp8 by matrix": Format("fp8", by_rows=False),
}
MOST = {"int8": 127.0, "fp8": 448.0}
Weights = dict[str, torch.Tensor]


class InEightBits:
    """A kernel that has its own copy of everything, as a packed one does: numbers times scale, rounded to bfloat16."""

    def __init__(self, format: Format) -> None:
        self.format = format

    def take(self, module: Any, weight: torch.Tensor, largest: torch.Tensor) -> None:
        """Quantize with NumPy in float32, independently of the code under test."""
        most = np.float32(MOST[self.format.number])
        scale = largest.float().numpy().astype(np.float32) / most
        scaled = weight.float().numpy() / scale
        if self.format.number == "int8":
            numbers = torch.from_numpy(np.rint(scaled))
        else:
            numbers = torch.from_numpy(scaled).clamp(-448, 448).to(torch.float8_e4m3fn).float()
        self.numbers, self.scale = numbers, torch.from_numpy(np.asarray(scale))
        module.weight = None
        module.weight_scale = nn.Parameter(self.scale.clone(), requires_grad=False)

    def apply(self, module: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return ((x.float() @ self.numbers.T) * self.scale.reshape(1, -1)).to(x.dtype)


class Layers(nn.Module):
    """Rank 1 of 2: rows of q and k in one matrix, columns of o, and a bias."""

    def __init__(self, format: Format) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            module: Any = nn.Module()
            module.register_parameter("weight", nn.Parameter(torch.randn(shape).bfloat16(), requires_grad=False))
            module.quant_method = InEightBits(format)
            self.add_module(name, module)
        self.qk.register_parameter("bias", nn.Parameter(torch.zeros(16, dtype=torch.bfloat16), requires_grad=False))

    def push(self, effect: Effect, weights: Weights, forget: str = "", keep: str = "", own_scale: bool = False) -> None:
        """A loader that forgets a tensor, leaves one module as it was, or makes the scale of the rank's own columns."""
        live = {name: (module._parameters.copy(), module.quant_method) for name, module in self.named_children()}
        for name, module in self.named_children():
            module.weight = nn.Parameter(torch.empty(SHAPES[name], dtype=torch.bfloat16, device="meta"), False)
        effect.begin()
        with effect.loading(list(weights.items())):
            for name, tensor in weights.items():
                if name != forget:
                    self.load(name, tensor)
        mine = {"qk": torch.cat([weights[n][8:] for n in ("q", "k")]), "o": weights["o"][:, 16:].contiguous()}
        everyone = {"qk": torch.cat([weights["q"], weights["k"]]), "o": weights["o"]}
        for name, module in self.named_children():
            if name == keep:
                module._parameters.update(live[name][0])
                continue
            format = module.quant_method.format
            seen = (mine if own_scale or (format.by_rows and name == "qk") else everyone)[name].abs()
            module.quant_method = InEightBits(format)
            module.quant_method.take(module, mine[name], seen.amax(1, True) if format.by_rows else seen.amax())

    def load(self, name: str, tensor: torch.Tensor) -> None:
        if name == "bias":
            self.qk.bias.data.copy_(tensor)
        elif name == "o":
            self.o.weight.data.copy_(tensor.narrow(1, 16 * RANK, 16))
        else:
            self.qk.weight.data.narrow(0, 8 * "qk".index(name), 8).copy_(tensor.narrow(0, 8 * RANK, 8))


def made() -> Weights:
    shapes = {"q": (16, WIDTH), "k": (16, WIDTH), "bias": (16,), "o": (WIDTH, 32)}
    return {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}


def changed(weights: Weights, name: str, at: tuple[int, int], to: float) -> Weights:
    after = {key: tensor.clone() for key, tensor in weights.items()}
    after[name][at] = to
    return after


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> Format:
    torch.manual_seed(0)
    return FORMATS[request.param]


@pytest.fixture
def layers(format: Format) -> Layers:
    return Layers(format)


@pytest.fixture
def effect(layers: Layers, format: Format) -> Effect:
    return Effect(layers, dict.fromkeys(SHAPES, format))


def test_a_push_into_8_bits_is_proven(layers: Layers, effect: Effect) -> None:
    weights = made()
    for after in (weights, weights, changed(weights, "k", (13, 5), 0.3), changed(weights, "o", (3, 2), 7.0), made()):
        layers.push(effect, after)
        assert effect.missing(set()) == [] and effect.stale() == []


@pytest.mark.parametrize("forget", ["q", "k", "o"])
def test_a_layer_that_lacks_a_part_is_refused(layers: Layers, effect: Effect, forget: str) -> None:
    layers.push(effect, made())
    layers.push(effect, made(), forget)
    assert forget in effect.missing(set())
    assert set(effect.stale()) == {"q", "k"} - {forget} if forget in "qk" else not effect.stale()


@pytest.mark.parametrize(("name", "at", "module"), [("q", (9, 3), "qk"), ("k", (13, 5), "qk"), ("o", (3, 20), "o")])
def test_one_number_that_stays_behind_is_stale(
    layers: Layers, effect: Effect, format: Format, name: str, at: tuple[int, int], module: str
) -> None:
    """One number changes by one step of its 8 bits, and the loader leaves the layer as it was."""
    weights = changed(made(), name, at, 0.0)
    largest = float((weights[name][at[0]] if format.by_rows else torch.cat([weights["q"], weights["k"]])).abs().max())
    to = 0.51 * largest / 127 if format.number == "int8" else 0.01 * largest
    layers.push(effect, weights)
    layers.push(effect, changed(weights, name, at, to), keep=module)
    assert effect.missing(set()) == [] and effect.stale() == [name]


@pytest.mark.parametrize("format", ["int8", "fp8 by rows"], indirect=True)
def test_a_row_whose_largest_number_stays_behind_by_one_step_of_bfloat16_is_stale(
    layers: Layers, effect: Effect
) -> None:
    weights = changed(made(), "k", (11, 4), 5.0)
    layers.push(effect, weights)
    layers.push(effect, changed(weights, "k", (11, 4), 5.03125), keep="qk")
    assert effect.stale() == ["k"]


def test_a_scale_of_one_ranks_part_of_a_row_is_refused(layers: Layers, effect: Effect) -> None:
    """Otherwise ranks would round the same row with different scales."""
    weights = made()
    weights["o"][:, :16] *= 3
    weights["q"][:8] *= 9
    layers.push(effect, weights, own_scale=True)
    assert "o" in effect.stale()


def test_a_first_push_that_leaves_the_dummy_weights_is_stale(layers: Layers, effect: Effect, format: Format) -> None:
    for name, module in layers.named_children():
        module.quant_method.take(module, torch.randn(SHAPES[name]).bfloat16(), torch.ones(SHAPES[name][0], 1))
        if not format.by_rows:
            module.weight_scale = nn.Parameter(torch.ones(()), requires_grad=False)
    layers.push(effect, made(), keep="qk")
    assert effect.stale() == ["k", "q"]


def test_a_stale_copy_of_the_bias_is_seen(layers: Layers, effect: Effect) -> None:
    weights = made()
    layers.qk.register_parameter("bias_fp32", nn.Parameter(weights["bias"].float(), requires_grad=False))
    layers.push(effect, weights)
    assert effect.stale() == []
    layers.push(effect, weights | {"bias": weights["bias"] + 1})
    assert effect.stale() == ["k", "q"]


@pytest.mark.parametrize("number", ["int8", "fp8"])
def test_numbers_are_the_nearest_and_are_read_back_exactly(number: Any) -> None:
    """Against float64; the step of fp8 is an eighth of its power of two. Read from products in bfloat16."""
    format = Format(number, by_rows=True)
    weight = (torch.randn(64, 512) * torch.logspace(-3, 1, 64)[:, None]).bfloat16()
    scale = format.scale(weight.abs().amax(1, keepdim=True))
    numbers = format.numbers(weight, scale)
    exact = weight.double() / scale.double()
    power = torch.floor(torch.log2(exact.abs().clamp_min(2.0**-6)))
    step = torch.ones_like(exact) if number == "int8" else 2.0 ** (power - 3)
    float32 = 2.0**-23 * exact.abs()
    assert bool(((numbers.double() - exact).abs() <= 0.5 * step + float32).all())
    assert torch.equal(format.read((numbers * scale).bfloat16(), scale), numbers)
    assert len(numbers.unique()) > 200, "most of the numbers there are"
