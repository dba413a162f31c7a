"""The recipes of the paper's experiments, as described and as published."""

from places import ROOT

from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig

RECIPES = ROOT / "launch" / "recipes"


def experiment(number: int, *overrides: str) -> RunConfig:
    return load_config(RECIPES / f"open-rs{number}.yaml", list(overrides))


def published(number: int = 3, *overrides: str) -> RunConfig:
    return experiment(number, "--fidelity", "as_published", *overrides)
