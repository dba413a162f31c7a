"""The command that proves what was trained on: run on records that are right, and on three that are not."""

import csv
import json
from pathlib import Path

import pytest
from test_record import SAMPLES, group
from test_record import write as write_step

from launch.account import main
from openrs_ray.attempts import start_attempt
from openrs_ray.config import RunConfig
from openrs_ray.record import CompletionRecord

PROBLEMS = 7
"""Which `test_record.group` draws in file order."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder: three steps of three problems, killed after the second and resumed after the first."""
    sections = {
        "run": {"name": "run", "folder": str(tmp_path), "steps": 9},
        "model": {"path": "toy"},
        "data": {"path": "toy", "shuffle": False},
        "rollout": {"problems_per_step": 3, "completions_per_problem": SAMPLES, "max_completion_tokens": 8},
    }
    (tmp_path / "config.json").write_text(RunConfig.model_validate(sections).model_dump_json())
    (tmp_path / "problems.json").write_text(json.dumps({"fingerprint": "", "count": PROBLEMS}))
    start_attempt(tmp_path, 0)
    write_step(tmp_path, 1, 1)
    write_step(tmp_path, 2, 1)
    start_attempt(tmp_path, 1)
    write_step(tmp_path, 2, 2)
    write_step(tmp_path, 3, 2)
    return tmp_path


def test_every_position_is_listed_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--csv", str(run / "positions.csv")]) == 0
    assert capsys.readouterr().out.startswith("3 steps, 9 groups, 18 completions trained on\npositions lost: 0\n")
    lines = list(csv.DictReader((run / "positions.csv").open()))
    assert [int(line["position"]) for line in lines] == list(range(9))
    assert lines[4] == {
        "position": "4", "epoch": "0", "problem": "4", "phase": "train", "step": "2", "attempt": "2",
        "versions": "1-2", "completions": "2",
    }  # fmt: skip
    assert (lines[8]["epoch"], lines[8]["problem"], lines[8]["attempt"]) == ("1", "1", "2")


@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        (range(9, 11), "positions lost: 1: 11"),
        (range(8, 12), "positions counted twice: 1: 8"),
        (range(9, 13), "positions not due yet: 1: 12"),
    ],
)
def test_what_is_not_right_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], positions: range, sentence: str
) -> None:
    write_step(run, 4, 2, positions=positions)
    assert main([str(run)]) == 1
    assert sentence in capsys.readouterr().out


def test_another_problem_than_the_order_has_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "problems.json").write_text(json.dumps({"fingerprint": "", "count": PROBLEMS + 1}))
    assert main([str(run)]) == 1
    assert "positions with another problem than the order has: 2: 7, 8" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is no run's folder: config.json cannot be read\n"


@pytest.mark.parametrize(
    ("file", "content"), [("config.json", '{"run": {}}'), ("problems.json", '{"fingerprint": ""}')]
)
def test_a_run_of_another_version_is_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, content: str
) -> None:
    (run / file).write_text(content)
    assert main([str(run)]) == 2
    assert capsys.readouterr().err.startswith(f"error: the run in {run} was written by another version")


def test_a_replaced_group_is_listed_and_its_position_is_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_step(run, 4, 2, "replaced", positions=range(10, 12))
    write_step(run, 4, 2, positions=[9, 12, 13])
    write_step(run, 5, 2, "replaced", positions=range(14, 15))  # killed before the rest of step 5 was written
    assert main([str(run), "--csv", str(run / "positions.csv")]) == 0
    assert capsys.readouterr().out.startswith("4 steps, 14 groups, 2 of them replaced, 24 completions trained on\n")
    phases = {int(line["position"]): line["phase"] for line in csv.DictReader((run / "positions.csv").open())}
    assert [position for position, phase in phases.items() if phase == "replaced"] == [10, 11] and len(phases) == 14


def test_a_superseded_step_does_not_count(run: Path) -> None:
    CompletionRecord(run).write(9, 1, [group(50)], [["", ""]], None)  # of the attempt that was superseded
    assert main([str(run)]) == 0
