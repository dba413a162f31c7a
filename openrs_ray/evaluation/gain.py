"""Gain of a run on its own held-out problems, paired."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.paired import Pair, Paired, compare
from openrs_ray.records import Status
from openrs_ray.run.completion_files import current_files


def checked_tasks(config: RunConfig) -> list[str] | None:
    """Tasks with right and wrong answers; None where there is one task only."""
    return [task.name for task in config.tasks if task.right_or_wrong] if config.tasks[0].name else None


def gain(run_folder: Path, step: int, tasks: Collection[str] | None = None) -> tuple[Paired, int]:
    """Policy `step` against the start model, and the number of problems. RunError where the record lacks one.

    `tasks`: those to compare, of a run of several.
    """
    after, before = recorded_scores(run_folder, step, tasks), recorded_scores(run_folder, 0, tasks)
    if after.shape[0] != before.shape[0]:
        raise RunError(f"steps 0 and {step} were not evaluated on the same problems")
    try:
        return compare([Pair(after, before)]), len(after)
    except ValueError as error:
        raise RunError(f"{error}") from error


def gain_text(run_folder: Path, step: int, tasks: Collection[str] | None = None) -> str:
    """Example: "+13.3 points [+1.7, +25.0], paired over the same 60 problems" """
    paired, problems = gain(run_folder, step, tasks)
    mean, low, high = (100 * part for part in (paired.difference.mean, paired.difference.low, paired.difference.high))
    shown = "" if low > 0 or high < 0 else ": no difference is shown"
    doubt = "" if paired.bounds is None else ", unjudged completions left out"
    return f"{mean:+z.1f} points [{low:+z.1f}, {high:+z.1f}], paired over the same {problems} problems{doubt}{shown}"


def recorded_scores(run_folder: Path, step: int, tasks: Collection[str] | None) -> np.ndarray:
    """float [problems, samples] as in `figures.Samples`."""
    files = [file for file in current_files(run_folder, "evaluation") if file.step == step]
    columns = ["problem_index", "sample", "status", *(["task"] if tasks is not None else [])]
    rows = [row for file in files for row in file.read(columns).to_pylist() if tasks is None or row["task"] in tasks]
    if not rows:
        raise RunError(f"the record in {run_folder} has no evaluation of step {step}")
    problems, samples = (1 + max(row[name] for row in rows) for name in ("problem_index", "sample"))
    scores = np.full((problems, samples), np.nan)
    for row in rows:
        status = Status(row["status"])
        if status.judged:
            scores[row["problem_index"], row["sample"]] = float(status is Status.CORRECT)
    return scores if tasks is None else scores[sorted({row["problem_index"] for row in rows})]
