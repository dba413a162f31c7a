"""The real command with little money: it ends by itself in time to save and evaluate, and goes on when it is given more."""

import json
import re
from pathlib import Path

import pytest
from commands import finish, result, start, steps_done, tail, write_recipe

from launch.coverage import main as prove
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

PRICE, GPUS = 36.0, 2
"""One cent for each GPU and second."""
HOURS = 60 / 3600
"""Of which the end of a run keeps 24 seconds."""


def spent(run: Path) -> dict[str, float]:
    content: dict[str, float] = json.loads((run / "cost.json").read_text())["spent"]
    return content


def said(lines: str, budget: float) -> float:
    """Dollars that the last sentence about the budget names."""
    sentence = rf"[Rr]un run has spent \$ (\d+\.\d\d) of {budget:.2f}, .* raise cost.budget_usd"
    return float(re.findall(sentence, lines)[-1])


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_a_run_ends_within_its_budget_and_goes_on_with_more(tmp_path: Path, toy_folder: Path) -> None:
    changes = {
        "evaluation": {"path": "toy-heldout", "problems": 16},
        "cost": {"price_per_gpu_hour": PRICE},
        "checkpoint": {"every_steps": 10_000},
    }
    log, stdout = tmp_path / "log", tmp_path / "stdout"
    short = write_recipe(tmp_path / "short.yaml", toy_folder, tmp_path, "short", 1, **changes)
    assert finish(start([str(short)], log), log) == 0, tail(log)
    little = spent(tmp_path / "short")["dollars"]
    # By this machine's own pace: to start, evaluate, save and end, and for some steps.
    budget = round(2 * little + 0.6, 2)
    changes["cost"]["budget_usd"] = budget
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 100_000, **changes)
    run = tmp_path / "run"
    log.write_text("")
    assert finish(start([str(recipe), "--restart", "--json"], log, document=stdout), log) == 0, tail(log)

    first, steps = result(run), steps_done(run)
    document = json.loads(stdout.read_text())
    assert (document["ended_by"], document["steps"], document["accuracy_after"]) == ("budget", steps, first["after"])
    assert 0 < document["dollars"] <= budget and document["difference"]["problems"] == 16
    assert first["ended"] == "budget" and first["step"] == steps > 0 and first["evaluated"] == steps
    assert first["before"] and first["after"]
    saved = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    assert (saved.step, saved.kind) == (steps, "kept") and (saved.policy / "model.safetensors").exists()
    cost = spent(run)
    assert 0.5 * budget < cost["dollars"] <= budget
    assert cost["dollars"] == pytest.approx(cost["gpu_hours"] * PRICE) and cost["gpu_hours"] == pytest.approx(
        GPUS * cost["hours"]
    )
    lines = log.read_text()
    assert 0 <= cost["dollars"] - said(lines, budget) + 0.005 < little, "it is said before the actors are closed"
    assert lines.count("[run, $ ") == lines.count("[run"), "the dollars stand in every line"
    assert "(forecast " in lines and "cost per correct completion" in lines

    log.write_text("")
    assert finish(start([str(recipe), "--resume", "--restart"], log), log) == 2
    assert "error: Run run has spent" in tail(log) and steps_done(run) == steps
    assert said(log.read_text(), budget) >= round(cost["dollars"], 2), "with the seconds that this process has taken"
    assert spent(run) == cost, "an attempt that does not begin is not put to the run's account"

    more = ["--resume", "--run.steps", str(steps + 3), "--cost.budget_usd", "20"]
    assert finish(start([str(recipe), *more], log), log) == 0, tail(log)
    last = result(run)
    assert last["ended"] == "steps" and last["step"] == last["evaluated"] == steps + 3
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4)
    assert coverage.exact and coverage.steps == steps + 3
    assert prove([str(run)]) == 0, "the rows of its evaluations, too"
    figures = [line["cost_usd"] for line in read_metrics(run)]
    assert figures == sorted(figures) and figures[0] > 0 and spent(run)["dollars"] > figures[-1]
    assert figures[steps] > cost["dollars"], "the account goes on where it ended"
    correct = read_metrics(run)[-1]["cost_usd_per_correct"]
    assert correct is None or correct == pytest.approx(figures[-1] / int(str(last["correct"])), rel=1e-6)


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(300)
def test_a_run_that_its_hours_do_not_let_start_says_so(tmp_path: Path, toy_folder: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 3, cost={"max_hours": HOURS})
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log, "unstarted_engines.py")
    assert finish(process, log) == 2, tail(log)
    assert "error: Run run has spent 0.0" in tail(log) and "raise cost.max_hours" in tail(log)
    assert "Traceback" not in tail(log) and 0.4 * HOURS < spent(run)["hours"] <= HOURS
