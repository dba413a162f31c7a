"""The guard's rules over recorded runs: a healthy one and one that goes wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from guarded import guarded, line

from launch.performance.guard import main, watched
from openrs_ray.common.files import append_line, write_json
from openrs_ray.run.attempts import start_attempt


def run(folder: Path, turn: int, **wrong: Any) -> Path:
    """40 steps, from step `turn` on with other figures."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", guarded("off").model_dump(mode="json"))
    start_attempt(folder, 0)
    for step in range(1, 41):
        figures = line(step, **(wrong if step >= turn else {}))
        append_line(folder / "metrics.jsonl", figures | {"attempt": 1, "phase": "train"})
    for step, low in ((0, 0.4), (40, 0.1)):
        bounds = {"accuracy": low + 0.05, "low": low, "high": low + 0.1}
        append_line(folder / "metrics.jsonl", {"step": step, "attempt": 1, "phase": "evaluation", **bounds})
    return folder


def test_the_answers_about_a_run(tmp_path: Path) -> None:
    found = watched(run(tmp_path / "wrong", 21, entropy=2.0), [])
    # From step 23 on, a window of five has at least 3 steps at 2.0: a mean of 1.36, above 1.2. The fifth in a row is 27.
    assert found.alarms == {"entropy_rise": 18, "held_out": 1} and (found.back, found.steps) == (27, 40)
    assert found.nearest["entropy_rise"] == pytest.approx((2.0 - 0.4) / (1.2 - 0.4))
    milder = watched(tmp_path / "wrong", ["guard.entropy_rise.limit=6", "guard.held_out.action=off"])
    assert not milder.alarms and milder.back is None and milder.nearest["entropy_rise"] == pytest.approx(0.8)


def test_the_table_and_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run(tmp_path / "one", 99), run(tmp_path / "two", 21, grad_norm=50.0)]
    file = tmp_path / "figures.json"
    rules = ["--rules", "guard.held_out.action=off"]
    assert main([*map(str, runs), *rules, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert (
        "one, 40 steps: no alarm" in shown
        and "two, 40 steps: grad_norm 20; would have gone back after step 25" in shown
    )
    figures = {figure["name"]: figure["values"] for figure in json.loads(file.read_text())["figures"]}
    assert figures["alarms"] == [0.0, 20.0] and figures["grad_norm: nearest to its limit"][0] == 0.0


def test_nothing_to_look_at_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "name runs, or give --seeds" in capsys.readouterr().err
