"""Low-rank adapters in a model: which layers have one, and the files that peft reads.

An adapted layer `q_proj` has three weights: `q_proj.base_layer.weight`, frozen, and `q_proj.lora_A.default.weight` and
`q_proj.lora_B.default.weight`, which are trained. Outside this package it has one, `q_proj.weight`, the merged one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from openrs_ray.config.learner import Lora
from openrs_ray.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig

    from openrs_ray.models.lora_layer import MergedLinear

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def linear_layers(model: PreTrainedModel, lora: Lora) -> dict[str, nn.Linear]:
    """Linear layers of the blocks that get an adapter, by name. UserError if the model has matrices that cannot have one."""
    name, blocks = _blocks(model)
    found: dict[str, nn.Linear] = {}
    others: list[tuple[str, str]] = []
    for path, module in blocks.named_modules():
        if lora.layers == "attention" and not _in_attention(blocks, path):
            continue
        if isinstance(module, nn.Linear):
            found[f"{name}.{path}"] = module
        elif any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)):
            others.append((f"{name}.{path}", type(module).__name__))
    kind = type(model).__name__
    if others:
        path, unfit = others[0]
        elsewhere = not any(_in_attention(blocks, path.removeprefix(f"{name}.")) for path, _ in others)
        instead = ", or learner.lora.layers attention" if elsewhere else ""
        raise UserError(
            f"{path} of this {kind} is a {unfit}, and only linear layers can have an adapter: set learner.lora.rank 0{instead}"
        )
    if not found:
        raise UserError(
            f"no linear layer was found in the {'attention' if lora.layers == 'attention' else 'blocks'} of this {kind}: "
            "set learner.lora.rank 0"
        )
    path, smallest = min(found.items(), key=lambda layer: min(layer[1].in_features, layer[1].out_features))
    if lora.rank > (side := min(smallest.in_features, smallest.out_features)):
        raise UserError(
            f"learner.lora.rank ({lora.rank}) is more than the smaller side of {path} ({side}), so that an adapter would be "
            f"larger than its weight: set it to at most {side}"
        )
    return found


def _blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of blocks: the module list that holds most of the weights, and its name."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    if not lists:
        raise UserError(f"no stack of layers was found in this {type(model).__name__}: set learner.lora.rank 0")
    return max(lists.items(), key=lambda item: sum(parameter.numel() for parameter in item[1].parameters()))


def _in_attention(blocks: nn.ModuleList, path: str) -> bool:
    """True for modules inside one whose class name says attention, as in all families of transformers."""
    parts = path.split(".")
    above = (blocks.get_submodule(".".join(parts[:depth])) for depth in range(1, len(parts)))
    return any("attention" in type(module).__name__.lower() for module in above)


def attach(model: PreTrainedModel, lora: Lora, seed: int) -> "LoraConfig":
    """Freeze the model and give it adapters that change nothing yet: A is random by `seed`, B is 0."""
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    from openrs_ray.models.lora_layer import MergedLinear

    names = _short_names(model, lora)
    config = LoraConfig(
        r=lora.rank, lora_alpha=cast(int, lora.used_alpha), target_modules=names, task_type=TaskType.CAUSAL_LM
    )  # fmt: skip
    config._register_custom_module({nn.Linear: MergedLinear})
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    return config


def _short_names(model: PreTrainedModel, lora: Lora) -> list[str]:
    """Last parts of the layers' names, as other tools expect, if no other module has them; else the whole names."""
    layers = linear_layers(model, lora)
    last = sorted({name.rsplit(".", 1)[-1] for name in layers})
    meant = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in last}
    return last if meant == layers.keys() else sorted(layers)


def adapted_layers(model: nn.Module) -> "dict[str, MergedLinear]":
    """Layers of the model that have an adapter, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "bypassed")}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Context in which the model computes as the start model."""
    layers = adapted_layers(model).values()
    for layer in layers:
        layer.bypassed = True
    try:
        yield
    finally:
        for layer in layers:
            layer.bypassed = False


def write_adapter(
    folder: Path, config: "LoraConfig", start_model: str, layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Write an adapter as peft does. `layers`: A [rank, in] and B [out, rank] by the layer's name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"base_model.model.{name}.lora_{side}.weight": weight.contiguous()
        for name, pair in layers.items()
        for side, weight in zip("AB", pair, strict=True)
    }
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    replace(config, base_model_name_or_path=start_model, inference_mode=True).save_pretrained(str(folder))
