"""Shape of a model, as plans of memory and time need it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from openrs_ray.config.learner import Lora
from openrs_ray.errors import UserError
from openrs_ray.models.lora import linear_layers
from openrs_ray.models.pretrained import empty_model

_VOCABULARY_STEP = 64
"""Of vLLM, which fills the vocabulary up to a multiple of it before it splits it."""


class Linear(NamedTuple):
    """A linear layer of a block."""

    outputs: int
    inputs: int
    of_attention: bool

    @property
    def elements(self) -> int:
        return self.outputs * self.inputs


@dataclass(frozen=True, slots=True)
class ModelShape:
    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parameter_shapes: tuple[tuple[int, ...], ...]
    """Shapes of all parameters in push order; tied ones once."""
    linears: tuple[Linear, ...] = ()
    """Linear layers without the head: those that can have adapters, and that engines quantize."""
    most_rank: int = 0
    """Largest rank that adapters of all blocks' matrices can have; 0 where one of them cannot have any."""
    teacher: "ModelShape | None" = None
    """Shape of the model that this one learns from (`loss.teacher`)."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "ModelShape":
        """Shape without allocating weights. UserError unless it is a causal language model."""
        model = empty_model(config)
        text = config.get_text_config()
        hidden, heads, head = text.hidden_size, text.num_attention_heads, model.get_output_embeddings()
        return cls(
            family=config.model_type,
            hidden=hidden,
            intermediate=getattr(text, "intermediate_size", None) or 4 * hidden,
            layers=text.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or hidden // heads,
            vocabulary=text.vocab_size,
            parameter_shapes=tuple(tuple(parameter.shape) for parameter in model.parameters()),
            linears=tuple(
                Linear(layer.out_features, layer.in_features, "attn" in name or "attention" in name)
                for name, layer in model.named_modules()
                if isinstance(layer, nn.Linear) and layer is not head
            ),
            most_rank=_most_rank(model),
        )

    def broken_split(self, gpus: int) -> str | None:
        """Rule that an engine over so many GPUs breaks: it must "divide the 12 attention heads". None if vLLM can split all."""
        if self.heads % gpus:
            return f"divide the {self.heads} attention heads"
        if self.kv_heads % gpus and gpus % self.kv_heads:
            return f"divide, or be a multiple of, the {self.kv_heads} key/value heads"
        if self.intermediate % gpus and any(self.intermediate in layer[:2] for layer in self.linears):
            return f"divide the intermediate size ({self.intermediate})"
        if (filled := -(-self.vocabulary // _VOCABULARY_STEP) * _VOCABULARY_STEP) % gpus:
            return f"divide the vocabulary as vLLM fills it up ({filled})"
        return None

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.parameter_shapes))

    @property
    def largest(self) -> int:
        """Elements of the largest parameter."""
        return max(map(math.prod, self.parameter_shapes))

    def adapted(self, lora: Lora) -> tuple[Linear, ...]:
        """Linear layers with an adapter."""
        return tuple(layer for layer in self.linears if lora.layers == "all" or layer.of_attention) if lora.rank else ()

    def adapters(self, lora: Lora) -> int:
        """Parameters of all adapters: two matrices of the rank for each linear layer that has one."""
        return lora.rank * sum(layer.outputs + layer.inputs for layer in self.adapted(lora))


def _most_rank(model: PreTrainedModel) -> int:
    try:
        layers = linear_layers(model, Lora(rank=1)).values()
    except UserError:
        return 0
    return min(min(layer.in_features, layer.out_features) for layer in layers)
