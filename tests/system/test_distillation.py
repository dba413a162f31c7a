"""A whole run that learns from a teacher, which here is its own start model: what they must agree in is known exactly."""

import os
from pathlib import Path

import distilling
import pytest
from commands import finish, start, tail, write_recipe

from openrs_ray.common.files import read_json
from openrs_ray.models.toy.teach import build_toy
from openrs_ray.run.account import FILE as ACCOUNT
from openrs_ray.run.completion_files import current_files
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics


@pytest.mark.nightly
def test_the_teacher_is_asked_what_the_policy_is_asked_and_taught_by_itself_it_learns_nothing(
    tmp_path: Path, toy_folder: Path
) -> None:
    """The start model as its own teacher gives the same tokens, the same score, no divergence, and no gradient."""
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        toy_folder,
        tmp_path / "runs",
        "taught",
        1,
        evaluation={"path": "toy-heldout", "problems": 12},
        loss={"kind": "distill", "teacher": {"path": str(toy_folder)}},
    )
    log, run = tmp_path / "log", tmp_path / "runs" / "taught"
    assert finish(start([str(recipe)], log), log) == 0, tail(log)
    (step,), evaluations = read_metrics(run), read_metrics(run, "evaluation")
    assert abs(step["teacher_kl"]) < 1e-6 and step["grad_norm"] < 1e-4 and 0.5 < step["top_share"] < 1
    before = next(line for line in evaluations if line["step"] == 0)
    teacher = read_json(run / "teacher.json") or {}
    assert {name: teacher[name] for name in ("accuracy", "low", "high")} == {
        name: before[name] for name in ("accuracy", "low", "high")
    }
    ours, its = (
        next(current_files(folder, "evaluation")).read(["token_ids"])["token_ids"].to_pylist()
        for folder in (run, run / "teacher")
    )
    same = sum(own == other for own, other in zip(ours, its, strict=True))
    assert len(its) == 12 and same >= 10, "the same seeds, but for the rounding of differently filled batches"
    seconds = (read_json(run / ACCOUNT) or {})["seconds"]
    assert len(seconds["evaluation"]) == len(evaluations), "the teacher's is none of the run's"
    assert "the teacher itself, held out" in log.read_text() and "teacher itself, for $ 0" in log.read_text()
    measured = os.stat(run / "teacher.json").st_mtime_ns
    assert finish(start([str(recipe), "--resume", "--run.steps", "2"], log), log) == 0, tail(log)
    assert os.stat(run / "teacher.json").st_mtime_ns == measured, "it is measured once"
    assert log.read_text().count("the teacher itself, held out") == 1
    assert check_coverage(run, 4, 4).exact


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_teacher_lifts_an_under_taught_toy_where_few_completions_a_step_do_not(tmp_path: Path) -> None:
    """The table of docs/distillation.md with fewer seeds; each bound is of a whole interval."""
    build_toy(tmp_path, distilling.UNDER_TAUGHT)
    runs = {
        name: [distilling.train(seed, loss, tmp_path) for seed in (42, 43)] for name, loss in distilling.LOSSES.items()
    }
    taught = [run.after for run in runs["top_k 16"]]
    assert distilling.difference(taught, [run.before for run in runs["top_k 16"]]).low > 0.04
    assert distilling.difference(taught, [run.after for run in runs["grpo"]]).low > 0.04
    assert distilling.difference(taught, [run.after for run in runs["top_k 0"]]).low > 0.02
