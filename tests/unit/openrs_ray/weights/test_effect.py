"""The proof that a push takes effect, on modules that load as vLLM's do: fused, sharded, packed. No engine."""

from typing import Any

import pytest
import torch
from torch import nn

from openrs_ray.weights.digest import column_digests
from openrs_ray.weights.effect import Effect

RANK, RANKS, WIDTH = 1, 2, 16
Weights = dict[str, torch.Tensor]


class Layer(nn.Module):
    """Rank 1 of 2 of a layer: rows of q and k in one matrix, columns of o, the norm whole; `packed` as on a CPU."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        for name, shape in {"qk": (16, WIDTH), "o": (WIDTH, 8), "norm": (WIDTH,)}.items():
            module = nn.Module()
            data = torch.randn(shape).bfloat16()
            self.add_module(name, module)
            module.register_parameter("weight", nn.Parameter(data, requires_grad=False))
            if packed and len(shape) == 2:
                self.pack(module, data)

    def pack(self, module: Any, data: torch.Tensor) -> None:
        module.cpu_linear = lambda x, weight, bias: nn.functional.linear(x, data)
        module.weight = nn.Parameter(torch.empty(0, dtype=data.dtype), requires_grad=False)

    def push(self, effect: Effect, weights: Weights, forget: frozenset[str] = frozenset(), keep: str = "") -> None:
        """Load with a loader that forgets some and leaves one module as it was."""
        live = {name: module.weight for name, module in self.named_children()}
        shapes = {"qk": (16, WIDTH), "o": (WIDTH, 8), "norm": (WIDTH,)}
        for name, module in self.named_children():
            module.weight = nn.Parameter(torch.empty(shapes[name], dtype=torch.bfloat16, device="meta"), False)
        effect.begin()
        with effect.loading(list(weights.items())):
            for name, tensor in weights.items():
                if name not in forget:
                    self.load(name, tensor)
        fused = {
            "qk": torch.cat([weights[name][8:] for name in ("q", "k")]),
            "o": weights["o"][:, 8:].contiguous(),
            "norm": weights["norm"],
        }
        for name, module in self.named_children():
            module.weight = live[name]
            if name != keep and self.packed and fused[name].dim() == 2:
                self.pack(module, fused[name].clone())
            elif name != keep:
                module.weight.data.copy_(fused[name])

    def load(self, name: str, tensor: torch.Tensor) -> None:
        if name == "norm":
            self.norm.weight.data.copy_(tensor)
        elif name == "o":
            self.o.weight.data.copy_(tensor.narrow(1, 8 * RANK, 8))
        else:
            self.qk.weight.data.narrow(0, 8 * "qk".index(name), 8).copy_(tensor.narrow(0, 8 * RANK, 8))


def made() -> Weights:
    shapes = {"q": (16, WIDTH), "k": (16, WIDTH), "o": (WIDTH, 16), "norm": (WIDTH,)}
    return {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}


def moved(weights: Weights, name: str, *at: int) -> Weights:
    """One element of one tensor goes to the next number that bfloat16 has."""
    after = {key: tensor.clone() for key, tensor in weights.items()}
    after[name][at] = torch.nextafter(after[name][at], torch.tensor(torch.inf).bfloat16())
    return after


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def layer(request: pytest.FixtureRequest) -> Layer:
    torch.manual_seed(0)
    return Layer(request.param)


def test_a_push_that_took_effect_is_proven(layer: Layer) -> None:
    effect, weights = Effect(layer), made()
    for after in (weights, weights, moved(weights, "k", 13, 5), moved(weights, "o", 3, 2)):  # the last is for rank 0
        layer.push(effect, after)
        assert effect.missing(set()) == [] and effect.stale() == []


@pytest.mark.parametrize("forget", [{"q", "k", "o", "norm"}, {"q", "k", "o"}, {"k"}])
def test_what_the_loader_forgets_is_missing(layer: Layer, forget: set[str]) -> None:
    effect, weights = Effect(layer), made()
    layer.push(effect, weights)
    layer.push(effect, weights, frozenset(forget))
    assert forget <= set(effect.missing(set()))
    layer.push(effect, weights)
    assert effect.missing(set()) == []


@pytest.mark.parametrize(
    ("name", "at", "module"), [("q", (9, 3), "qk"), ("k", (13, 5), "qk"), ("o", (3, 12), "o"), ("norm", (7,), "norm")]
)
def test_one_element_that_stays_behind_is_stale(layer: Layer, name: str, at: tuple[int, ...], module: str) -> None:
    """By one step of bfloat16, in the module that was left as it was."""
    effect, weights = Effect(layer), made()
    layer.push(effect, weights)
    layer.push(effect, moved(weights, name, *at), keep=module)
    assert effect.missing(set()) == [] and effect.stale() == [name]


class Reordering(Layer):
    """Its checkpoints have the rows of k in another order, as some families' query, key and value do."""

    def load(self, name: str, tensor: torch.Tensor) -> None:
        super().load(name, tensor.view(8, 2, WIDTH).transpose(0, 1).reshape(16, WIDTH) if name == "k" else tensor)


def test_what_a_loader_reorders_is_proven_too() -> None:
    torch.manual_seed(0)
    layer, weights = Reordering(packed=False), made()
    effect = Effect(layer)
    ordered = weights | {"k": weights["k"].view(8, 2, WIDTH).transpose(0, 1).reshape(16, WIDTH)}
    with_k_as_it_came, with_k_in_order = (torch.cat([weights["q"][8:], one["k"][8:]]) for one in (weights, ordered))
    layer.push(effect, weights)
    assert effect.missing(set()) == [] and effect.stale() == ["k"], "the layer holds the rows as they came"
    assert not torch.equal(with_k_as_it_came, with_k_in_order)
    layer.qk.weight.data.copy_(with_k_in_order)
    assert effect.missing(set()) == [] and effect.stale() == []


def test_a_first_push_that_leaves_the_dummy_weights_is_stale(layer: Layer) -> None:
    effect = Effect(layer)
    layer.push(effect, made(), keep="qk")
    assert effect.stale() == ["k", "q"]


@pytest.mark.parametrize(
    ("dtype", "columns", "per_digest"), [("bfloat16", 6, 2), ("bfloat16", 5, 1), ("float32", 5, 1)]
)
def test_a_changed_element_shows_in_its_columns_digest_alone(dtype: str, columns: int, per_digest: int) -> None:
    matrix = torch.randn(1000, columns).to(getattr(torch, dtype))
    before = column_digests(matrix)
    assert len(before) == columns // per_digest
    matrix[777, 4] = torch.nextafter(matrix[777, 4], torch.tensor(torch.inf, dtype=matrix.dtype))
    assert (column_digests(matrix) != before).nonzero().tolist() == [[4 // per_digest]]
    assert not torch.equal(column_digests(matrix.flip(0)), column_digests(matrix)), "the order of the rows counts"
