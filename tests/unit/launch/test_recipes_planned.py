"""Recipes with a plan in their header: it is what the planner says today, and the recipe fits the card that it names."""

from functools import cache
from pathlib import Path

import pytest
from pages import code_below
from places import ROOT

from openrs_ray.cluster.cards import card
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import ROOM, needs_checkpointing, plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import planned_shape
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
    "opd-justrl",
    "sanity",
    "justrl-8k",
    "fastcurl-stages",
    "prorl-lite",
)


def recipe(name: str, *overrides: str) -> tuple[RunConfig, ModelShape, Machine]:
    config = load_config(RECIPES / f"{name}.yaml", list(overrides))
    return config, shape_of(config.model.path, config.loss.teacher.path), Machine.planned(config)


@cache
def shape_of(model: str, teacher: str | None) -> ModelShape:
    shape = planned_shape(model, teacher)
    assert shape is not None
    return shape


def planned_line(config: RunConfig, shape: ModelShape, machine: Machine) -> str:
    """The header line with the plan."""
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


def test_the_whole_recipe_of_the_page_fits_one_gpu_of_24_gb(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(code_below("Your own recipe", "recipes", "yaml"))
    config = load_config(tmp_path / "mine.yaml", ["--placement.gpu_name=RTX 4090", "--placement.gpu_memory_gib=23.5"])
    assert config.num_gpus == 1
    check_fits(config, shape_of(config.model.path, None), Machine.planned(config))


def test_adapters_on_24_gb_are_trained_by_the_command_of_the_page() -> None:
    """It fits without the optimizer in the host's memory; the recipe's header has the same line."""
    command = code_below("Which recipe for which card", "memory", "bash").replace("\\\n", " ").split()
    header = (RECIPES / "one-gpu-24gb.yaml").read_text().replace("\\\n#", " ")
    assert " ".join(command) in " ".join(header.split())
    assert command[:4] == ["python", "-m", "launch.train", "one-gpu-24gb"]
    config, shape, machine = recipe("one-gpu-24gb", *command[4:])
    assert (config.learner.learning_rate, config.learner.lora.rank, config.learner.optimizer) == (1e-5, 32, "adamw")
    check_fits(config, shape, machine)
    assert sum(host_parts(config, shape).values()) < 4 * GIB


def table(heading: str) -> list[list[str]]:
    """Cells of the rows of docs/memory.md's table below a heading."""
    text = (ROOT / "docs" / "memory.md").read_text().partition(heading)[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def test_the_page_says_of_each_recipe_what_is_planned() -> None:
    for _, name, _, on_gpu, on_host, seconds in table("## Which recipe for which card"):
        config, shape, machine = recipe(name.strip("`"))
        assert machine.card is not None and machine.gpu_bytes is not None
        (shared,) = plan(config, shape, machine.gpu_bytes)
        tight = "" if shared.fits(ROOM * machine.gpu_bytes) else ": tight"
        assert on_gpu == f"{shared.peak / GIB:.1f} of {machine.gpu_bytes / GIB:g} GiB{tight}"
        host = sum(host_parts(config, shape).values()) / GIB
        assert on_host == (f"{host:.1f} GiB" if host else "-")
        best, worst = forecast(config, shape, machine.card, machine.gpu_bytes, 0)
        assert seconds == f"{machine.card.name}: {best.step_s:.0f} to {worst.step_s:.0f}"


OFFLOAD, REFERENCE, EIGHT, LORA = (
    "--learner.optimizer=adamw_offload", "--learner.offload_reference=true", "--learner.optimizer=adamw_8bit",
    "--learner.lora.rank=32",
)  # fmt: skip
SMALL, KEPT = "--learner.micro_batch_tokens=4096", "--learner.gradient_checkpointing=false"
SETTINGS = (
    (), (KEPT,), (SMALL,), (SMALL, KEPT), ("--learner.logprob_chunk_tokens=512",),
    ("--learner.offload_activations=true", "--learner.gradient_checkpointing=auto"), (REFERENCE,), (EIGHT,), (EIGHT, REFERENCE),
    (OFFLOAD,), (OFFLOAD, REFERENCE), (LORA,), (LORA, SMALL, "--learner.logprob_chunk_tokens=512"),
)  # fmt: skip
"""Settings in the order of the page's rows."""


def test_the_page_says_what_each_setting_saves_and_costs() -> None:
    rows = table("## What each setting saves")
    base = ("--learner.gradient_checkpointing=true", "--engine.gpu_memory_fraction=0.3")
    for (name, *cells), options in zip(rows, SETTINGS, strict=True):
        config, shape, _ = recipe("one-gpu-80gb", *base, *options)
        recomputes = needs_checkpointing(config, shape, None) and KEPT not in options
        peaks = {when: sum(parts.values()) for when, parts in learner_phases(config, shape, recomputes).items()}
        pushing, host = peaks.pop("in a push"), sum(host_parts(config, shape).values())
        expected = [f"{size / GIB:.1f}" if size else "-" for size in (pushing, max(peaks.values()), host)]
        gpu = card("RTX 4090")
        assert gpu is not None
        best, worst = forecast(config, shape, gpu, None, 0)
        expected.append(f"{best.learning_s:.1f} to {worst.learning_s:.1f}")
        for gib in (23.5, 44, 79):
            (shared,) = plan(config, shape, gib * GIB)
            word = "fits" if shared.fits(ROOM * gib * GIB) else "tight" if shared.fits(gib * GIB) else "no"
            expected.append(word)
        assert cells == expected, name
