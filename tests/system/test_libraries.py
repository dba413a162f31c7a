"""Runs on problems of reasoning-gym and verifiers, with functions of an environment that hang, die, raise and eat memory."""

import os
from pathlib import Path
from typing import Any

import commands
import pytest
from commands import assert_all_gone, descendants, finish, start, steps_done, tail, wait_until, write_recipe
from places import SUPPORT

from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.cpu_engine, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = commands.PYTHONPATH, str(SUPPORT / "verifiers_environments"), os.environ.get("PYTHONPATH", "")
    monkeypatch.setattr(commands, "PYTHONPATH", os.pathsep.join(filter(None, parts)))


def trained(folder: Path, toy: Path, **changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Recorded rows of a finished run of 2 steps."""
    sections = {"rollout": {"max_prompt_tokens": 64, "max_first_truncated_share": 1.0}} | changes
    recipe = write_recipe(folder / "recipe.yaml", toy, folder, "run", 2, **sections)
    process = start([str(recipe)], folder / "log")
    wait_until(lambda: steps_done(folder / "run") >= 1, 400, process, folder / "log")
    family = descendants(process)
    assert finish(process, folder / "log") == 0, tail(folder / "log")
    assert_all_gone(family)
    return current_rows(folder / "run").to_pylist()


def test_reasoning_gym_trains_on_partial_credit(tmp_path: Path, toy_folder: Path) -> None:
    library = pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    parameters = {"seed": 3, "size": 24, "min_terms": 2, "max_terms": 2, "max_digits": 1}
    rows = trained(
        tmp_path,
        toy_folder,
        data={"path": "reasoning-gym:chain_sum", "parameters": parameters},
        evaluation={"path": None, "hold_out": 4},
        rewards={"weights": {"reasoning_gym": 1.0, "format": 0.5}},
    )
    made = library.create_dataset("chain_sum", **parameters)
    entries = {entry["question"]: entry for entry in made}
    assert len(rows) == 32
    for row in rows:
        score = made.score_answer(row["answer"], entries[row["problem"]])
        assert dict(row["rewards"])["reasoning_gym"] == pytest.approx(score)
    figures = [line for line in read_metrics(tmp_path / "run") if line["phase"] == "train"]
    assert [line["step"] for line in figures] == [1, 2] and all("reward_reasoning_gym" in line for line in figures)


def test_an_environment_of_verifiers_trains_over_its_own_faults(tmp_path: Path) -> None:
    pytest.importorskip("verifiers", reason="the extra verifiers is not installed")
    faults = ["reward_hang", "reward_die", "turn_raise", "turn_hang", "turn_eat", "", "", ""]
    rows = trained(
        tmp_path,
        Path("toy"),  # it was taught to end its turns
        data={"path": "verifiers:sums_in_turns", "parameters": {"tasks": 8, "faults": faults}},
        evaluation={"path": None, "hold_out": 0},
        environment={"max_turns": 3, "max_turn_tokens": 48, "processes": 1, "deadline_s": 4},
        rewards={"weights": {"verifiers": 1.0}, "deadline_s": 4, "max_unjudged_share": 1.0, "processes": 1},
        rollout={
            "max_prompt_tokens": 64,
            "max_first_truncated_share": 1.0,
            "max_completion_tokens": 112,
            "problems_per_step": 8,
            "completions_per_problem": 2,
        },
        learner={"micro_batch_tokens": 4096},
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        number = int(row["problem"].split("+")[0]) - 214
        found.setdefault(faults[number], set()).add(row["status"])
    assert found["reward_hang"] <= {"timeout"} and found["reward_die"] <= {"error"}
    assert found["turn_raise"] <= {"error"} and found["turn_hang"] <= {"timeout"} and found["turn_eat"] <= {"error"}
    assert found[""] == {"unchecked"}, "the others are undisturbed"
    sound = [row for row in rows if row["status"] == "unchecked"]
    assert all(row["reward"] in (0.0, 1.0, 2.0) for row in sound)
    assert any(row["sampled"] is not None for row in sound), "two turns"
    assert check_coverage(tmp_path / "run", problems_per_step=8, completions_per_problem=2, staleness=0).exact
