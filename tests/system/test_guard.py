"""The guard in real runs that are made to go wrong by a reward that pays for it, and in healthy ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import finish, start, tail, write_recipe
from tiny import save_model

from launch.coverage import main as prove
from launch.performance.guard import main as ask
from openrs_ray.models.toy.tokenizer import CHARACTERS, END, PAD, ROLES, UNKNOWN, WORDS, tokenizer_of
from openrs_ray.report.summary import summary
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.decisions import Decision, read_decisions
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import read_result

CAP = 48
GUARD: dict[str, Any] = {"action": "roll_back", "baseline_steps": 5, "max_rollbacks": 1}
QUICK: dict[str, Any] = {"window": 3, "patience": 2}


def wrong_run(folder: Path, model: Path, reward: str, guard: dict[str, Any], weights: dict[str, float]) -> Path:
    """A run whose reward, a function of the user's own, pays for what the guard watches; it ends by itself."""
    (folder / "pays.py").write_text(reward)
    recipe = write_recipe(
        *(folder / "recipe.yaml", model, folder, "run", 150),
        rewards={"weights": weights},
        rollout={"max_completion_tokens": CAP, "problems_per_step": 8},
        learner={"learning_rate": 3e-3, "schedule": "constant", "warmup_share": 0.0, "micro_batch_tokens": 2048},
        guard=GUARD | guard,
    )
    log = folder / "log"
    assert finish(start([str(recipe)], log), log) == 1, tail(log)
    assert "error: The guard stops run run after step" in log.read_text()
    return folder / "run"


def assert_caught(run: Path, rule: str) -> list[Decision]:
    """Warned, gone back to a checkpoint before the alarm at half the rate, warned again, stopped; and nothing is lost."""
    taken = read_decisions(run)
    acted = [decision for decision in taken if decision.action != "warn"]
    assert [decision.action for decision in acted] == ["roll back", "stop"], [one.sentence for one in taken]
    back = acted[0]
    assert back.evidence["rule"] == rule and back.to_step is not None
    assert back.to_step < back.evidence["since"], "a checkpoint that the alarm is not about"
    assert read_attempts(run) == {1: 0, 2: back.to_step}
    factors = {line["step"]: line["setting/learning_rate_factor"] for line in read_metrics(run)}
    assert all(factor == (1.0 if step <= back.to_step else 0.5) for step, factor in factors.items())
    assert prove([str(run)]) == 0
    shown = summary(run)
    assert shown["headline"]["rollbacks"] == 1 and shown["headline"]["guard_stop"] == acted[1].sentence
    assert sum(event["kind"] == "decision" for event in shown["events"]["rows"]) == len(taken)
    return taken


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_lengths_that_explode_are_caught(tmp_path: Path, toy_folder: Path) -> None:
    pays = f"def longer(completion, token_count):\n    return token_count / {CAP}\n"
    only = {rule: {"action": "off"} for rule in ("entropy_rise", "entropy_fall", "grad_norm", "accuracy", "no_spread")}
    guard = only | {"length": QUICK, "truncated_share": {"action": "warn"}}
    assert_caught(wrong_run(tmp_path, toy_folder, pays, guard, {"pays.py:longer": 1.0}), "length")


@pytest.fixture
def two_scripts(tmp_path: Path) -> Path:
    """A random model that writes Latin and Cyrillic letters."""
    letters = [chr(code) for code in range(ord("a"), ord("k"))]
    cyrillic = ["".join(_spelled(byte) for byte in letter.encode()) for letter in "бгджзилнпф"]
    tokens = (PAD, END, UNKNOWN, *ROLES, *WORDS, *CHARACTERS, *letters, *cyrillic)
    folder = save_model(tmp_path / "model", vocabulary=len(tokens))
    tokenizer_of(tokens, model_max_length=256).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 1, "pad_token_id": 0}))
    return folder


def _spelled(byte: int) -> str:
    """A byte above 0xA0 as byte-level BPE spells it; the others of two-byte letters are shifted."""
    return chr(byte) if byte > 0xA0 and byte != 0xAD else chr(256 + 33 + byte - 0x7F)


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_language_that_drifts_is_caught(tmp_path: Path, two_scripts: Path) -> None:
    pays = "def other(completion):\n    return sum('а' <= letter <= 'я' for letter in completion) / 24\n"
    only = {rule: {"action": "off"} for rule in ("entropy_rise", "entropy_fall", "grad_norm", "accuracy", "no_spread")}
    guard = only | {"language": QUICK, "length": {"action": "off"}, "truncated_share": {"action": "off"}}
    run = wrong_run(tmp_path, two_scripts, pays, guard, {"pays.py:other": 1.0, "language": 0.0})
    assert_caught(run, "language")


def at_ten_times_the_rate(folder: Path, name: str, **guard: Any) -> tuple[float, float, Path]:
    """Held-out accuracy before and after a quickstart whose learning rate makes the toy collapse; and the run's folder."""
    fields = {"run.name": name, "run.folder": folder, "run.steps": 40, "learner.learning_rate": 1e-3}
    fields |= {"evaluation.every_steps": 5, "evaluation.problems": 200, "checkpoint.every_steps": 5}
    fields |= {f"guard.{field}": value for field, value in guard.items()}
    log = folder / f"{name}.log"
    assert (
        finish(start(["quickstart", *(f"--{field}={value}" for field, value in fields.items())], log), log, 3000) == 0
    )
    result = read_result(folder / name)
    assert result and result.before and result.after
    return result.before.mean, result.after.mean, folder / name


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(7200)
def test_a_toy_that_collapses_ends_above_its_start_with_the_guard_and_below_without(tmp_path: Path) -> None:
    before, after, run = at_ten_times_the_rate(tmp_path, "guarded", action="roll_back")
    assert after > before and sum(one.action == "roll back" for one in read_decisions(run)) >= 1
    before, after, run = at_ten_times_the_rate(tmp_path, "watched", action="warn")
    assert after < before and {one.action for one in read_decisions(run)} == {"warn"}


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(10800)
def test_no_false_alarm_in_ten_healthy_runs(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    seeds = [*map(str, range(42, 52))]
    assert ask(["--seeds", *seeds, "--folder", str(tmp_path), "--json", str(file)]) == 0
    figures = {figure["name"]: figure["values"] for figure in json.loads(file.read_text())["figures"]}
    assert figures["steps"] == [50.0] * 10 and figures["alarms"] == [0.0] * 10
