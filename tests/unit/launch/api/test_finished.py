"""A run as Python sees it: its evaluations are those that the command has written."""

from pathlib import Path
from typing import Any

import pytest
from system import make_run

from launch import evaluate
from launch.api import finished
from launch.api.finished import load_run
from openrs_ray.common.files import write_json
from openrs_ray.evaluation.protocol import protocol
from openrs_ray.evaluation.subject import find_subjects, side_by_side


def evaluated(name: str, words: list[str]) -> None:
    """Writes a report where `launch.evaluate` does."""
    assert name == "evaluate"
    options, _ = evaluate._parser().parse_with_fields(words)
    (given,) = options.models
    found = find_subjects(given, options.start, options.step, Path(given).parent)
    how = protocol(options.protocol, found.run, samples=options.samples)
    folder = Path(options.folder).absolute() if options.folder else None
    report = side_by_side([found], how, Path(given).parent, folder).report
    report.mkdir(parents=True)
    write_json(
        report / "report.json", {"of": found.model.label, "benchmarks": options.benchmarks, "data": options.data}
    )


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 100),
        ({"step": 50, "samples": 4}, 50),
        ({"protocol": "as_published"}, 100),
        ({"folder": "elsewhere"}, 100),
    ],
)
def test_an_evaluation_is_that_of_the_policy(
    options: dict[str, Any], step: int, tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "run_command", evaluated)
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path, toy_folder, "mine")
    found = load_run(run).evaluate("math500", "own=rows.jsonl", **options)
    assert found == {"of": f"mine, step {step}", "benchmarks": "math500,own", "data": ["own=rows.jsonl"]}
