"""Parts step_a, step_b, push_ipc, push_nccl and rollout: the benchmarks of the whole, as their own commands run them."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from launch.performance.gpu_suite.rows import Row, Size, Skip, aim, noted
from openrs_ray.errors import RunError, UserError

_TRL_SETTING = "no checkpointing"
"""One of three, for the time it takes: the fastest, as far as is known, of those that do all of our work."""
_PUSH = ("--set", "engine.enforce_eager=true")
"""Graphs make no difference to a push, and take a minute to make."""


def step_a(size: Size) -> Iterator[Row]:
    workload = (
        ["--workload", "random-1.5b", "--steps", "3"] if size == "full" else ["--workload", "tiny", "--steps", "1"]
    )
    yield from _against_trl(workload)


def step_b(size: Size) -> Iterator[Row]:
    """On built-in sums."""
    from openrs_ray.models.bundled import data_path
    from openrs_ray.models.smollm2 import package_version

    problems = data_path("toy")
    try:
        package_version()
    except UserError as error:
        raise Skip(str(error)) from error
    if size == "tiny":
        raise Skip("a model of 135 M parameters is too slow on a CPU; step_a runs the same code")
    yield from _against_trl(["--workload", "smollm2", "--problems", str(problems), "--steps", "3"])


def push_ipc(size: Size) -> Iterator[Row]:
    if size == "tiny":
        yield from _figures("push", ["--workload", "tiny", "--rounds", "1"])
    else:
        aims = {"push, s": "<= 0.15"}
        yield from _figures("push", ["--workload", "random-1.5b", "--rounds", "3", *_PUSH], aims | _EXTRA_MEMORY)


def push_nccl(size: Size) -> Iterator[Row]:
    if size == "tiny":
        raise Skip("needs a GPU; push_ipc runs the same code by gloo")
    aims = {"push / bare transfer, GB/s, ratio": ">= 0.8"}
    arguments = ["--workload", "random-1.5b", "--nccl", "--rounds", "3", *_PUSH]
    yield from _figures("push", arguments, aims | _EXTRA_MEMORY)


_EXTRA_MEMORY = {f"peak extra memory, {end}, GiB": "<= 1.1" for end in ("sender", "receiver")}


def rollout(size: Size) -> Iterator[Row]:
    workload = ["random-1.5b", "--rounds", "2"] if size == "full" else ["tiny", "--rounds", "1"]
    yield from _figures("rollout", ["--workload", *workload])


def _against_trl(arguments: list[str]) -> Iterator[Row]:
    missing = [name for name in ("trl", "accelerate") if find_spec(name) is None]
    if missing:
        yield noted("TRL", f"left out: {', '.join(missing)} not installed (`bash launch/setup.sh trl`)")
    trl = ["--no-trl"] if missing else ["--trl-setting", _TRL_SETTING]
    yield from _figures("step", [*arguments, "--no-alone", *trl])


def _figures(command: str, arguments: list[str], aims: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Figures of `python -m launch.performance.COMMAND`; its own words go to the part's log."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        done = subprocess.run(
            [sys.executable, "-m", f"launch.performance.{command}", *arguments, "--json", str(file)], check=False
        )
        if done.returncode:
            raise RunError(
                f"launch.performance.{command} ended with exit code {done.returncode}: its words are in the log"
            )
        content = json.loads(file.read_text(encoding="utf-8"))
    for figure in content["figures"]:
        yield row_of(figure, (aims or {}).get(f"{figure['name']}, {figure['unit']}", figure["target"]))
    for setting, reason in content["settings"].get("trl_failed", {}).items():
        yield noted(f"TRL, {setting}", reason)


def row_of(figure: Mapping[str, Any], target: str) -> Row:
    """The median with its spread, held to a target such as ">= 0.97"."""
    name, unit, middle = figure["name"], figure["unit"], float(figure["median"])
    if target:
        sign, bound = target.split()
        row = aim(name, middle, float(bound), unit, least=sign == ">=")
    else:
        row = noted(name, middle, unit)
    return replace(row, figure=f"{row.figure} ({min(figure['values']):,.4g} to {max(figure['values']):,.4g})")
