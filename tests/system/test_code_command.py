"""Training on programs: some hang, crash, eat memory or fork; the step ends, and each gets the verdict that it deserves."""

import json
from pathlib import Path

import psutil
import pytest
from commands import finish, start, tail, write_recipe
from program_rewards import HALF, MARK, PROGRAMS, RIGHT, WRONG

from openrs_ray.run.completions import current_rows
from openrs_ray.run.metrics import read_metrics

STEPS = 2


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_programs_that_hang_crash_and_eat_memory_are_wrong_and_disturb_nothing(
    tmp_path: Path, toy_folder: Path
) -> None:
    data = tmp_path / "programs.jsonl"
    tests = ["assert add(12, 30) == 42", "assert add(-1, 1) == 0"]
    rows = [{"problem": f"{n}+30", "answer": tests, "test_setup_code": ""} for n in range(10, 30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes: dict[str, dict[str, object]] = {
        "data": {"path": str(data)},
        "answer": {"kind": "code", "cpu_s": 1.0, "memory_gib": 0.5, "shown_tests": 0},
        "rewards": {"processes": 2, "weights": {"accuracy": 1.0, "tests_passed": 0.5}},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    log = tmp_path / "log"
    assert finish(start([str(recipe)], log, script="program_rewards.py"), log) == 0, tail(log)

    rows = current_rows(tmp_path / "run").to_pylist()
    judged = [(row["answer"].strip(), row["status"], dict(row["rewards"]), row["reward"]) for row in rows]
    assert len(judged) == STEPS * 16
    assert {program for program, *_ in judged} == {program.strip() for program in PROGRAMS}
    for program, status, rewards, reward in judged:
        share = {RIGHT: 1.0, HALF: 0.5}.get(program, 0.0)
        assert status == ("correct" if program == RIGHT else "wrong"), program
        assert rewards == {"accuracy": float(program == RIGHT), "tests_passed": share}
        assert reward == float(program == RIGHT) + share / 2
    details = {row["answer"].strip(): row["detail"] for row in rows}
    assert "computed for" in details[WRONG["hangs"]]
    assert "not ended after" in details[WRONG["sleeps"]]
    assert "MemoryError" in details[WRONG["eats memory"]]
    figures = [line for line in read_metrics(tmp_path / "run") if line["phase"] == "train"]
    assert len(figures) == STEPS and all(line["grad_norm"] > 0 for line in figures)
    assert not [process for process in psutil.process_iter(["name"]) if process.info["name"] == MARK]
