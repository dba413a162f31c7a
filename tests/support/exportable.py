"""Runs with policies and held-out figures, as they are exported."""

import json
from pathlib import Path

import pyarrow as pa
from system import make_run

from openrs_ray.common.files import append_line
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.completion_files import write_file


def evaluated_run(
    runs: Path, model: Path, accuracies: dict[int, float | None], kept: tuple[int, ...] = (50, 100)
) -> Path:
    """A run with the same policy at every kept step, and held-out accuracies by step (0: the start model)."""
    folder = make_run(runs, model, "sums", kept)
    note_accuracies(folder, accuracies)
    return folder


def note_accuracies(folder: Path, accuracies: dict[int, float | None]) -> None:
    config = RunConfig.model_validate_json((folder / "config.json").read_bytes())
    attempt = start_attempt(folder, 0, AttemptSettings.of(config))
    for step, accuracy in accuracies.items():
        figures = {"accuracy": accuracy, "low": accuracy and accuracy - 0.1, "high": accuracy and accuracy + 0.1}
        append_line(folder / "metrics.jsonl", {"step": step, "attempt": attempt, "phase": "evaluation"} | figures)


def change_config(folder: Path, **sections: dict[str, object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    for name, fields in sections.items():
        content[name] = {**content.get(name, {}), **fields}
    (folder / "config.json").write_text(json.dumps(content))


def note_answers(folder: Path, step: int, correct: list[list[bool]]) -> None:
    """The record of an evaluation, as far as a gain is computed from it; `correct`: [problems, samples]."""
    cells = [(problem, sample, right) for problem, row in enumerate(correct) for sample, right in enumerate(row)]
    problems, samples, right = zip(*cells, strict=True)
    status = ["correct" if each else "wrong" for each in right]
    table = pa.table({"problem_index": problems, "sample": samples, "status": status, "task": [""] * len(cells)})
    write_file(folder, "evaluation", step, 1, table)
