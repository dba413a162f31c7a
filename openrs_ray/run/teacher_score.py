"""The score of a distilled run's teacher itself, without any training: `RUN/teacher.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrs_ray.common.files import read_json, write_json
from openrs_ray.config.schema import RunConfig
from openrs_ray.stats import Interval

FILE = "teacher.json"
RECORD = "teacher"
"""Folder, in the run's, with the record of the teacher's completions."""


def write_teacher_score(config: RunConfig, problems: int, figures: Mapping[str, float]) -> None:
    """`figures`: as an evaluation's in `metrics.jsonl`."""
    about = {"path": config.loss.teacher.path, "problems": problems, "samples": config.evaluation.samples}
    write_json(config.run.path / FILE, {**about, "temperature": config.evaluation.temperature, **figures})


def teacher_score(run: Path, config: RunConfig | None) -> dict[str, Any] | None:
    """Figures as in a line of `metrics.jsonl`; None where the run's teacher was not measured."""
    found = read_json(run / FILE) if config is not None and config.loss.kind == "distill" else None
    return found if found and config is not None and found.get("path") == config.loss.teacher.path else None


def teacher_accuracy(run: Path, config: RunConfig | None) -> Interval | None:
    found = teacher_score(run, config) or {}
    if found.get("accuracy") is None:
        return None
    return Interval(found["accuracy"], found["low"], found["high"])
