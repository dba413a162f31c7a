"""What docs/tasks.md says, done as a new user would: a CSV file and an idea become a trained model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from places import ROOT

from openrs_ray.models.pretrained import read_model

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def block(kind: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}$.*?^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no {kind} below {heading}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own, outside of the project, with the page's files."""
    (tmp_path / "problems.csv").write_text(block("csv", "Ten lines of Python"))
    (tmp_path / "my_rewards.py").write_text(block("python", "The same in files"))
    (tmp_path / "my-task.yaml").write_text(block("yaml", "The same in files"))
    (tmp_path / "answers.jsonl").write_text(block("json", "The same in files"))
    return tmp_path


def run(folder: Path, *command: str) -> str:
    variables = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OPENRS_RUNS": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_reward_is_tried_on_a_file(folder: Path) -> None:
    said = run(
        folder, "-m", "launch.verify", "--rewards", "my_rewards.py:brevity", "--rewards", "accuracy", "answers.jsonl"
    )
    (verdict,) = map(json.loads, said.splitlines())
    assert verdict["status"] == "correct" and verdict["rewards"] == {"my_rewards.py:brevity": 1.0, "accuracy": 1.0}


def test_a_dry_run_reads_the_reward(folder: Path) -> None:
    said = run(folder, "-m", "launch.train", "my-task.yaml", "--dry-run")
    assert "my_rewards.py:brevity" in said and not (folder / "runs" / "my-task-2").exists()


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_the_ten_lines_train(folder: Path) -> None:
    (folder / "script.py").write_text(block("python", "Ten lines of Python"))
    said = run(folder, "script.py")
    *_, last = said.strip().splitlines()
    policy = Path(last.removeprefix("the trained model: "))
    assert policy.is_relative_to(folder / "runs" / "my-task") and read_model(str(policy), torch.float32, "eager")
    config = json.loads((folder / "runs" / "my-task" / "config.json").read_text())
    own, weight = next((name, weight) for name, weight in config["rewards"]["weights"].items() if "brevity" in name)
    assert own.endswith(".py:brevity") and weight == 0.5
    from launch.api.finished import load_run

    trained = load_run(folder / "runs" / "my-task")
    assert (trained.steps, trained.metrics.num_rows, trained.completions.num_rows) == (4, 4, 4 * 8 * 8)
    for row in trained.completions.to_pylist():
        rewards = dict(row["rewards"])
        assert row["reward"] == 2.0 * rewards["accuracy"] + 0.5 * rewards[own]
        assert rewards[own] == float(row["length"] <= 40)
    assert {row["problem"] for row in trained.completions.to_pylist()} == {
        line.split(",")[0] for line in block("csv", "Ten lines of Python").splitlines()[1:]
    }


def test_the_recipe_of_the_page_is_the_python_of_the_page(folder: Path) -> None:
    """Both pay the same; only the file's parameter differs."""
    recipe = yaml.safe_load((folder / "my-task.yaml").read_text())
    script = block("python", "Ten lines of Python")
    assert recipe["rewards"]["weights"] == {"accuracy": 2.0, "my_rewards.py:brevity": 0.5}
    assert '"accuracy": 2.0, "brevity": (brevity, 0.5)' in script
    assert (folder / "my_rewards.py").read_text().strip() in script
