"""Shapes of the models that recipes name, for planning without a network: `shapes.json`, which `launch.shapes` writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from openrs_ray.cluster.model_shape import ModelShape

FILE = Path(__file__).with_name("shapes.json")
_VALUES = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings", "max_position_embeddings"),
)
"""Values that decide a model's shape and the length of its sequences."""


def shape_values(config: PretrainedConfig) -> dict[str, Any]:
    """The `_VALUES` that a configuration has."""
    return {name: getattr(config, name) for name in _VALUES if getattr(config, name, None) is not None}


def shipped() -> dict[str, dict[str, Any]]:
    """Values by Hub id."""
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def planned_shape(model: str, teacher: str | None) -> ModelShape | None:
    """The shipped shape of a policy with that of its teacher; None where one of them does not come with the project."""
    shape, its = shipped_shape(model), shipped_shape(teacher) if teacher else None
    return None if shape is None or (teacher and its is None) else replace(shape, teacher=its)


def shipped_shape(name: str) -> ModelShape | None:
    """None where the model does not come with the project."""
    values = dict(shipped().get(name, {}))
    return ModelShape.of(AutoConfig.for_model(values.pop("model_type"), **values)) if values else None
