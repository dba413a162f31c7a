"""Recipes for small machines: each says in its header what the planner plans for it today, and fits the card it names."""

import pytest
from places import ROOT

from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig

RECIPES = ROOT / "launch" / "recipes"
GIB = 2**30
PLANNED = (
    "one-gpu-12gb",
    "one-gpu-24gb",
    "one-gpu-48gb",
    "one-gpu-80gb",
    "tina-lora",
    "open-rs3-2x2",
    "open-rs3-ahead",
)


def recipe(name: str, *overrides: str) -> tuple[RunConfig, ModelShape, Machine]:
    config = load_config(RECIPES / f"{name}.yaml", list(overrides))
    shape, machine = shipped_shape(config.model.path), Machine.planned(config)
    assert shape is not None
    return config, shape, machine


def planned_line(config: RunConfig, shape: ModelShape, machine: Machine) -> str:
    """The line of a header."""
    assert machine.card is not None and machine.gpu_bytes is not None
    plans = plan(config, shape, machine.gpu_bytes)
    used = " and ".join(f"{one.peak / GIB:.1f}" for one in plans)
    of = f"{machine.gpu_bytes / GIB:g} GiB{' (learner and engine)' if len(plans) > 1 else ''}"
    host = sum(host_parts(config, shape).values()) / GIB
    best, worst = forecast(config, shape, machine.card, machine.gpu_bytes, config.evaluation.hold_out or 0)
    price = config.cost.price * config.num_gpus
    return (
        f"# Planned, not measured: {used} of {of}{f', {host:.1f} of the host' if host else ''}; on {machine.card.name} "
        f"{best.step_s:.0f} to {worst.step_s:.0f} s a step, {best.hours:.1f} to {worst.hours:.1f} h, "
        f"$ {best.hours * price:.2f} to {worst.hours * price:.2f}"
    )


@pytest.mark.parametrize("name", PLANNED)
def test_a_header_has_the_figures_of_todays_planner(name: str) -> None:
    planned = recipe(name)
    assert planned_line(*planned) in (RECIPES / f"{name}.yaml").read_text().splitlines()
    check_fits(*planned)
