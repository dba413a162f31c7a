"""A distilled run's results stand beside what its teacher scores, wherever they are shown."""

import io
import json
from pathlib import Path

import pytest
from exportable import change_config, evaluated_run
from made_run import made_run
from rich.console import Console

from launch.driver.closing import end_as_json, show_end
from openrs_ray.common import hub
from openrs_ray.config.schema import RunConfig
from openrs_ray.export.card import model_card
from openrs_ray.export.folder import HERE
from openrs_ray.export.source import Source
from openrs_ray.report.summary import summary
from openrs_ray.run.budget import Budget
from openrs_ray.run.progress import Progress
from openrs_ray.run.teacher_score import teacher_accuracy, teacher_score, write_teacher_score
from openrs_ray.stats import Interval

DISTILLED = {"loss": {"kind": "distill", "teacher": {"path": "toy-teacher"}}}
FIGURES = {"accuracy": 0.97, "low": 0.95, "high": 0.98}


def config_of(run: Path) -> RunConfig:
    return RunConfig.model_validate_json((run / "config.json").read_bytes())


def written(folder: Path) -> tuple[Path, RunConfig]:
    """A finished run that was distilled from a teacher, and its config with the folder's own name."""
    run = made_run(folder / "made", changes=DISTILLED)
    config = config_of(run)
    write_teacher_score(config, 60, FIGURES)
    return run, config


def test_it_is_read_as_it_was_written_and_only_for_that_teacher(tmp_path: Path) -> None:
    run, config = written(tmp_path)
    assert teacher_accuracy(run, config) == Interval(0.97, 0.95, 0.98)
    about = {"path": "toy-teacher", "problems": 60, "samples": 1, "temperature": config.evaluation.temperature}
    assert teacher_score(run, config) == about | FIGURES
    other = config.loss.model_copy(update={"teacher": config.loss.teacher.model_copy(update={"path": "toy"})})
    plain = made_run(tmp_path / "plain")
    assert teacher_score(run, config.model_copy(update={"loss": other})) is None
    (plain / "teacher.json").write_text((run / "teacher.json").read_text())
    assert teacher_score(plain, config_of(plain)) is None, "it learned from rewards alone"


def test_the_page_the_table_and_the_json_show_it(tmp_path: Path) -> None:
    run, config = written(tmp_path)
    assert summary(run)["headline"]["teacher"] == {"mean": 0.97, "low": 0.95, "high": 0.98}
    out, progress = io.StringIO(), Progress(step=40, held_out=60)
    show_end(Console(file=out, width=120), config, progress, Budget(config, age_s=0.0))
    assert "teacher itself, for $ 0: 97.0 % [95.0, 98.0]" in out.getvalue()
    assert end_as_json(config, progress, Budget(config, age_s=0.0))["accuracy_of_teacher"].mean == 0.97


def test_a_run_without_a_teacher_says_nothing_of_one(tmp_path: Path) -> None:
    run = made_run(tmp_path / "made")
    out, progress = io.StringIO(), Progress(step=40, held_out=60)
    show_end(Console(file=out, width=120), config_of(run), progress, Budget(config_of(run), age_s=0.0))
    assert "teacher itself" not in out.getvalue() and summary(run)["headline"]["teacher"] is None


def test_the_model_card_says_it_and_whose_it_is(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "problem", lambda: "no network in this test")
    run = evaluated_run(tmp_path / "runs", toy_folder, {0: 0.2, 50: 0.85})
    change_config(run, **DISTILLED)
    unmeasured = model_card(Source.find(run, 50), HERE)
    assert "distilled from `toy-teacher`, which was not measured on these problems" in unmeasured
    (run / "teacher.json").write_text(json.dumps({"path": "toy-teacher", **FIGURES}))
    card = model_card(Source.find(run, 50), HERE)
    assert "| accuracy | the teacher itself | 97.0 % [95.0, 98.0] |" in card
    assert "It was distilled from `toy-teacher`: whoever can use that model has its score for $ 0" in card
