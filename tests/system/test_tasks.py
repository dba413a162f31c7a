"""Two data sets in one run, each a task with rewards, answers and held-out problems of its own, over a kill."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import finish, power_cut, result, start, steps_done, tail, wait_until, write_recipe

from launch.coverage import main as prove
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import read_rested
from openrs_ray.run.metrics import read_metrics

STEPS = 6


def write_rows(path: Path, problems: dict[str, int]) -> str:
    path.write_text("".join(json.dumps({"problem": text, "answer": gold}) + "\n" for text, gold in problems.items()))
    return str(path)


def data(folder: Path) -> list[dict[str, Any]]:
    sums = {f"{n}+{n + 1}": 2 * n + 1 for n in range(10, 27)}
    products, others = ({f"{n};{n + 1}": n * (n + 1) for n in ns} for ns in (range(10, 22), range(30, 35)))
    return [
        # Its model was taught nothing, so that all problems are at rest after the first epoch.
        {
            "path": write_rows(folder / "sums.jsonl", sums),
            "weight": 3,
            "rest_after": 1,
            "evaluation": {"hold_out": 6},
        },
        {
            "path": write_rows(folder / "products.jsonl", products),
            "name": "times",
            "weight": 1,
            "answer": {"kind": "exact"},
            "rewards": {"weights": {"accuracy": 1.0, "tag_count": 0.5}},
            "evaluation": {"path": write_rows(folder / "others.jsonl", others)},
        },
    ]


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_two_tasks_train_side_by_side_over_a_kill(
    tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, rollout={"staleness": 1})
    content = recipe.read_text().replace("data:\n  path: toy\n", f"data: {json.dumps(data(tmp_path))}\n")
    assert "times" in content
    recipe.write_text(content)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    power_cut(process)
    assert finish(start([str(recipe), "--resume"], log), log) == 0, tail(log)

    assert prove([str(run)]) == 0
    said = capsys.readouterr().out
    assert "positions lost: 0\npositions counted twice: 0" in said and "passed over" in said
    rows = current_rows(run).to_pylist()
    groups = Counter(task for _, task in {(row["position"], row["task"]) for row in rows})
    assert groups.total() == 4 * STEPS and f"groups by task: sums {groups['sums']}, times {groups['times']}" in said
    names = {task: {name for row in rows if row["task"] == task for name, _ in row["rewards"]} for task in groups}
    assert names == {"sums": {"accuracy", "format"}, "times": {"accuracy", "tag_count"}}
    used = {row["position"] for row in rows} | {row["position"] for row in read_rested(run)}
    assert used >= {*range(4 * STEPS)}
    over = [row for row in read_rested(run) if row["task"] == "sums"]
    assert over and all(row["solved"] == "never" and row["last_epoch"] < row["epoch"] for row in over)

    evaluated = current_rows(run, "evaluation", ["step", "task", "problem_index"]).to_pylist()
    assert Counter((row["step"], row["task"]) for row in evaluated) == {
        (step, task): count for step in (0, STEPS) for task, count in {"sums": 6, "times": 5}.items()
    }
    for line in read_metrics(run, "evaluation"):
        overall = (6 * line["task/sums/accuracy"] + 5 * line["task/times/accuracy"]) / 11
        assert line["accuracy"] == pytest.approx(overall) and line["task/sums/low"] <= line["task/sums/high"]
    assert all(0 <= line["task/times/accuracy"] <= 1 for line in read_metrics(run))
    ended = result(run)
    for name in ("tasks_before", "tasks_after"):
        assert {task: score["problems"] for task, score in ended[name].items()} == {"sums": 6, "times": 5}  # type: ignore[attr-defined]
    shown = log.read_text()
    for row in ("sums accuracy before", "times accuracy after", "times difference"):
        assert row in shown, tail(log)
    curves = b"".join(path.read_bytes() for path in (run / "tensorboard").glob("*"))
    assert b"train/task/sums/accuracy" in curves and b"evaluation/task/times/low" in curves

    refused = tmp_path / "refused"
    for change, sentence in (
        (["--data[0].weight", "2"], "data[0].weight was 3.0 when run run began and cannot become 2.0 on resume"),
        (["--data[1].rewards.weights.accuracy", "2"], "data[1].rewards.weights was"),
    ):
        assert finish(start([str(recipe), "--resume", "--run.steps", "8", *change], refused), refused) == 2
        assert sentence in " ".join(tail(refused).split()), tail(refused)
