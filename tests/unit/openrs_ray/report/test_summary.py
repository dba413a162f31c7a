"""The page's data are those of the run's files, for a run in any state."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from made_run import PROBLEMS, figures, made_run, write_report
from places import PYTHONPATH, ROOT
from whole_run import write_run

from openrs_ray.common.files import append_line
from openrs_ray.evaluation.gain import gain
from openrs_ray.evaluation.paired import Pair, compare
from openrs_ray.report.comparison import comparison
from openrs_ray.report.headline import headline
from openrs_ray.report.settings import recipe_given
from openrs_ray.report.summary import RunSummary, driven, summary
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.metrics import read_metrics


def test_the_headline_is_what_the_run_says_at_its_end(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    found = summary(run)
    head, (paired, problems) = found["headline"], gain(run, 40)
    assert (found["state"], found["step"], found["steps"], found["recipe"]) == ("finished", 40, 40, "quickstart")
    assert head["difference"]["p"] == paired.p < 0.01 and head["difference"]["significant"]
    assert head["difference"]["problems"] == problems == PROBLEMS
    assert (head["before"]["mean"], head["after"]["step"]) == (0.4, 40)
    assert (head["dollars"], head["gpu_hours"], head["tokens"]) == (1.5, 3.0, 40 * 500)
    assert found["faults"] == []


def test_a_run_that_a_limit_ended_says_which(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=40)
    assert summary(run)["why"] is None
    config = json.loads((run / "config.json").read_text())
    config["run"]["steps"] = 100
    (run / "config.json").write_text(json.dumps(config))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"ended": "flat", "why": "it gained too little"}))
    found = summary(run)
    assert (found["state"], found["why"]) == ("ended", "it gained too little")


def test_no_difference_is_called_significant_that_the_test_does_not_show(tmp_path: Path) -> None:
    found = summary(made_run(tmp_path / "run", after=0.43))["headline"]["difference"]
    assert not found["significant"] and found["p"] > 0.05 and found["low"] <= 0 <= found["high"]


def test_the_curves_are_the_lines_that_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")  # its second attempt did step 3 again
    found = summary(run)
    assert found["curves"]["step"] == [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5, 6]
    lengths = [line["mean_length"] for line in read_metrics(run)]
    assert np.allclose(found["curves"]["columns"]["mean_length"], lengths, rtol=1e-5)


def test_a_page_is_told_only_what_is_new_and_all_of_it_after_a_resume(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=30)
    follows = RunSummary(run)
    first = follows.read()["curves"]
    have = {"token": first["token"], "points": len(first["step"])}
    append_line(run / "metrics.jsonl", figures(31)[-1])
    news = follows.read(have)["curves"]
    assert (news["from"], news["step"], news["token"]) == (30, [31], first["token"])
    start_attempt(run, 20)
    again = follows.read(have)["curves"]
    assert again["from"] == 0 and again["step"] == [*range(1, 21)]


def test_a_run_that_has_just_begun_and_one_that_is_damaged_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert summary(tmp_path / "empty")["state"] == "empty"
    run = made_run(tmp_path / "run")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "manifest.json").write_text("{")
    (run / "config.json").write_text('{"run": {"name": 3}, "rollout": {}, "data": {}}')
    found = summary(run)
    assert len(found["faults"]) == 2 and found["curves"]["step"][-1] == 40


def test_only_a_living_driver_means_training(tmp_path: Path) -> None:
    lock = tmp_path / "driver.lock"
    assert not driven(tmp_path)
    lock.write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
    assert driven(tmp_path)
    lock.write_text(f"process {os.getpid()} on elsewhere\n")
    assert not driven(tmp_path)
    (tmp_path / "cost.json").touch()
    assert driven(tmp_path)
    os.utime(tmp_path / "cost.json", (0, 0))
    assert not driven(tmp_path)
    lock.write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
    before = psutil.Process().create_time() - 60
    os.utime(lock, (before, before))  # a process of another run, with the same number
    assert not driven(tmp_path)


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        ("python -m launch.train quickstart --resume", "quickstart"),
        (".venv/bin/python -m launch.train --run.steps 3 launch/recipes/open-rs3.yaml", "launch/recipes/open-rs3.yaml"),
        ("openrs train --resume 'my recipe.yaml' --loss.kind gspo", "my recipe.yaml"),
        ("python -m launch.train --run.steps=3 mine.yaml", "mine.yaml"),
        ("python -m pytest", None),
        ("it's broken", None),
    ],
)
def test_the_recipe_in_a_command_line(command: str, recipe: str | None) -> None:
    assert recipe_given(command) == recipe


def test_what_differs_from_the_recipe_is_named(tmp_path: Path) -> None:
    found = summary(made_run(tmp_path / "run"))["settings"]
    changed = {name: (recipe, run) for name, recipe, run in found["changed"]}
    assert changed["run.steps"] == ("50", "40") and changed["rollout.max_completion_tokens"] == ("48", "64")
    assert "run.name" not in changed and found["all"]["model.path"] == "toy"


def test_several_runs_are_compared_on_the_same_problems(tmp_path: Path) -> None:
    runs = [
        made_run(tmp_path / "one", after=0.5),
        made_run(tmp_path / "two", changes={"run": {"name": "other", "folder": str(tmp_path), "steps": 40, "seed": 7}}),
    ]
    other = made_run(tmp_path / "three", problem="2 + 2")
    found = comparison([*runs, other])
    assert found is not None
    solved = [np.array([[float(place < share * PROBLEMS)] for place in range(PROBLEMS)]) for share in (0.9, 0.5)]
    paired = compare([Pair(*solved)])
    first, second = found["paired"]
    assert (first["mean"], first["p"]) == (paired.difference.mean, paired.p) and first["significant"]
    assert second["fault"] == "three and one were evaluated on other problems"
    assert [row[0] for row in found["settings"]] == ["run.seed"]
    assert comparison(runs[:1]) is None


def test_a_difference_that_the_correction_takes_away_is_not_called_better(tmp_path: Path) -> None:
    """One run of four against the first, at a p-value between 0.05 / 3 and 0.05."""
    after = (0.5, 0.6, 0.5, 0.5)
    runs = [made_run(tmp_path / f"run{place}", after=share) for place, share in enumerate(after)]
    alone, among = comparison(runs[:2]), comparison(runs)
    assert alone is not None and among is not None
    assert alone["paired"][0]["significant"] and 0.05 / 3 < alone["paired"][0]["p"] < 0.05
    assert among["paired"][0]["corrected"] > 0.05 and not among["paired"][0]["significant"]


def test_before_is_the_start_model_and_no_policy(tmp_path: Path) -> None:
    lines = [{"step": step, "mean_reward": float(step), "low": 0.0, "high": 9.0} for step in (5, 10)]
    (found,) = headline(tmp_path, None, [], lines)["tasks"]
    assert found["before"] is None and found["after"]["mean"] == 10.0
    (found,) = headline(tmp_path, None, [], [lines[0] | {"step": 0}, *lines])["tasks"]
    assert found["before"]["mean"] == 5.0 and found["after"]["mean"] == 10.0


def test_tables_of_an_evaluation_are_those_of_its_report(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    write_report(run)
    follows = RunSummary(run)
    (found,) = follows.read()["evaluations"]
    settings = {"settings": {"model": "a digest"}, "benchmarks": {}, "sittings": 1}
    (run / "evaluation" / "robust" / "step-000040" / "settings.json").write_text(json.dumps(settings))
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "manifest.json").write_text('{"checkpoints": []}')  # as a run leaves it that has gone back
    (outdated,) = follows.read()["evaluations"]
    assert "a policy that the run no longer has" in outdated["notes"][0] and outdated["notes"][1:] == found["notes"]
    text = (run / found["place"] / "report.md").read_text()
    assert [table["heading"] for table in found["tables"]] == re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert all(note in text for note in found["notes"])
    (run / found["place"] / "report.json").write_text('{"models": {}}')  # of a version to come
    for _ in range(2):
        again = follows.read()
        assert again["evaluations"] == [] and "a report of another version" in again["faults"][0]


def test_secrets_in_settings_are_hidden(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["system_prompt"] = "hf_" + "a" * 30
    (run / "config.json").write_text(json.dumps(config))
    assert "hf_" not in json.dumps(summary(run))


def test_ten_thousand_steps_are_followed_at_a_glance(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=10_000)
    follows = RunSummary(run)
    first = follows.read()
    assert len(json.dumps(first)) < 2_000_000
    column = first["curves"]["columns"]["mean_length"]
    assert max(column) == 63  # the spike
    append_line(run / "metrics.jsonl", figures(1)[0] | {"step": 10_001})
    began = time.process_time()
    news = follows.read({"token": first["curves"]["token"], "points": len(first["curves"]["step"])})
    assert time.process_time() - began < 1.5 and len(news["curves"]["step"]) <= 3
    shutil.rmtree(run)


def test_a_page_loads_no_torch_and_makes_no_model(tmp_path: Path) -> None:
    """It would take memory, and minutes of the CPU, from the run beside it."""
    run = made_run(tmp_path / "run")
    script = (
        "import sys; from pathlib import Path; from openrs_ray.report.static import page_data; import openrs_ray.report.beside;"
        "page_data([Path(sys.argv[1])]); print(sorted({'torch', 'transformers', 'ray', 'vllm'} & {*sys.modules}))"
    )
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "OPENRS_CACHE": str(tmp_path / "cache")}
    said = subprocess.run(
        [sys.executable, "-c", script, str(run)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (said.stdout.strip(), said.returncode) == ("[]", 0), said.stderr
    assert not (tmp_path / "cache").exists()
