"""Tensors that leave the learner, by what they are for: the policy, its frozen base, or its adapters alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import nn

from openrs_ray.models.lora import adapted_layers
from openrs_ray.models.merging import merged
from openrs_ray.weights.adapters import BASE, DOWN, SCALE, SQUARE, UP, squared_change
from openrs_ray.weights.buckets import ParameterSpec

if TYPE_CHECKING:
    from openrs_ray.models.lora_layer import MergedLinear

Part = Literal["policy", "base", "adapters"]
"""All weights with the adapters merged, all weights of the start model, or the adapters alone."""


@dataclass(frozen=True, slots=True)
class Source:
    spec: ParameterSpec
    parameters: tuple[nn.Parameter, ...]
    """Of the model; they must be whole while `make` is called."""
    make: Callable[[], torch.Tensor]


def sources(model: nn.Module, part: Part) -> list[Source]:
    """In the model's order, tied parameters once."""
    layers = adapted_layers(model)
    if part == "adapters":
        scales = {layer.scale for layer in layers.values()}
        return [*_adapters(layers), *(_scale(scale) for scale in scales)]
    return list(_whole(model, layers, merge=part == "policy"))


def _whole(model: nn.Module, layers: "dict[str, MergedLinear]", *, merge: bool) -> Iterator[Source]:
    own = {id(weight) for layer in layers.values() for weight in (layer.down, layer.up)}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        plain = name.replace(".base_layer.", ".") if layers else name
        if layer is not None and merge:
            yield _merging(plain, layer)
        else:
            yield _plain(plain if merge else BASE + plain, parameter)


def _adapters(layers: "dict[str, MergedLinear]") -> Iterator[Source]:
    for name, layer in layers.items():
        yield _plain(f"{DOWN}{name}.weight", layer.down)
        yield _plain(f"{UP}{name}.weight", layer.up)
        square = ParameterSpec(f"{SQUARE}{name}.weight", "float64", (1,))
        yield Source(square, (layer.down, layer.up), partial(_square, layer))


def _plain(name: str, parameter: nn.Parameter) -> Source:
    return Source(_spec(name, parameter), (parameter,), lambda: parameter.data)


def _merging(name: str, layer: "MergedLinear") -> Source:
    base = cast(nn.Parameter, layer.base.weight)
    parameters = base, layer.down, layer.up
    return Source(_spec(name, base), parameters, partial(_merged, layer))


@torch.no_grad()
def _merged(layer: "MergedLinear") -> torch.Tensor:
    return merged(layer.base.weight.data, layer.down.data, layer.up.data, layer.scale)


@torch.no_grad()
def _square(layer: "MergedLinear") -> torch.Tensor:
    return squared_change(layer.down.data, layer.up.data, layer.scale)


def _scale(scale: float) -> Source:
    spec = ParameterSpec(SCALE, "float64", (1,))
    return Source(spec, (), lambda: torch.tensor([scale], dtype=torch.float64))


def _spec(name: str, parameter: nn.Parameter) -> ParameterSpec:
    shape = getattr(parameter, "ds_shape", parameter.shape)  # of ZeRO-3, which keeps a part of it here
    return ParameterSpec(name, str(parameter.dtype).removeprefix("torch."), tuple(shape))
