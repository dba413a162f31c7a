"""The paper's recipe and the shape of its model, for tests of plans."""

from places import ROOT

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig


def recipe(name: str, *overrides: str) -> RunConfig:
    return load_config(ROOT / "launch" / "recipes" / f"{name}.yaml", list(overrides))


def paper(*overrides: str) -> RunConfig:
    return recipe("open-rs3", *overrides)


def paper_shape() -> ModelShape:
    found = shipped_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert found is not None
    return found
