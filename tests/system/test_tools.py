"""A whole run with an environment of the user's own that hangs, crashes and fills the memory, over kills."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from commands import (
    assert_all_gone,
    descendants,
    finish,
    named,
    power_cut,
    start,
    steps_done,
    tail,
    wait_until,
    write_recipe,
)
from tiny import naive_logprobs, naive_model

from openrs_ray.config.load import load_config
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

STEPS = 6
TOKENIZER = make_tokenizer()
FAULTS = ["none", "hang", "crash", "memory", "none", "raise"]
ENVIRONMENT = '''
import os, subprocess, time


class Calculator:
    """Says the sum once; some problems have a fault instead."""

    def __init__(self, most=1):
        self.most = most

    def reply(self, messages, *, problem, row):
        if row["fault"] == "hang":
            subprocess.Popen(["sleep", "86399"])
            time.sleep(86399)
        if row["fault"] == "crash":
            os.kill(os.getpid(), 11)
        if row["fault"] == "memory":
            held = [bytes(50_000_000) for _ in range(1000)]
        if row["fault"] == "raise":
            raise KeyError("nothing")
        turns = sum(message["role"] == "assistant" for message in messages)
        return f"={sum(map(int, problem.split('+')))}" if turns <= self.most else None
'''


def write_files(folder: Path, toy_folder: Path) -> Path:
    rows = [{"problem": f"{n}+{n}", "answer": str(2 * n), "fault": FAULTS[n % 6]} for n in range(100, 148)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "my_env.py").write_text(ENVIRONMENT)
    changes: dict[str, dict[str, Any]] = {
        "data": {"path": str(folder / "problems.jsonl")},
        "environment": {
            "name": "my_env.py:Calculator",
            "parameters": {"most": 1},
            "deadline_s": 3.0,
            "memory_gib": 1.0,
            "processes": 1,
        },
        "rewards": {"max_unjudged_share": 1.0},
        "rollout": {"staleness": 1, "problems_per_step": 6, "max_completion_tokens": 40},
        "checkpoint": {"every_steps": 2},
        "evaluation": {"hold_out": 6},
    }
    return write_recipe(folder / "recipe.yaml", toy_folder, folder, "run", STEPS, **changes)


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_tool_that_hangs_crashes_and_fills_the_memory_costs_its_own_rollouts_only(
    tmp_path: Path, toy_folder: Path
) -> None:
    recipe, run, log = write_files(tmp_path, toy_folder), tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 1, 300, process, log)
    named(process, "EnvironmentPool").kill()  # Ray starts it again
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    power_cut(process)
    process = start([str(recipe), "--resume"], log)
    wait_until(lambda: len(read_attempts(run)) == 2 and steps_done(run) >= 4, 300, process, log)
    family = descendants(process)
    assert finish(process, log) == 0, tail(log)
    assert_all_gone(family)
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "86399"]]

    assert "The environment pool is lost and asked again until it is back" in log.read_text()
    used = check_coverage(run, problems_per_step=6, completions_per_problem=4, staleness=1)
    assert used.exact and used.steps == STEPS and used.completions == STEPS * 24
    rows = current_rows(run).to_pylist()
    faults = {
        row["problem"]: row["fault"] for row in map(json.loads, (tmp_path / "problems.jsonl").read_text().splitlines())
    }
    for row in rows:
        assert_ended_as_it_should(row, faults[row["problem"]])
    failed = Counter(faults[row["problem"]] for row in rows if row["detail"].startswith("environment: "))
    assert set(failed) == {"hang", "crash", "memory", "raise"}, failed
    two_turns = [row for row in rows if row["sampled"] is not None]
    assert len(two_turns) > 2 * STEPS
    assert_sampled_in_context(two_turns, toy_folder, recipe)
    figures = [line for line in read_metrics(run) if line["phase"] == "train"]
    for line in figures:
        statuses = Counter(row["status"] for row in rows if row["step"] == line["step"])
        assert line["timeouts"] == statuses["timeout"] and line["errors"] == statuses["error"]
        mine = [row for row in rows if row["step"] == line["step"]]
        assert line["environment_failures"] == sum(row["detail"].startswith("environment: ") for row in mine)


def assert_ended_as_it_should(row: dict[str, Any], fault: str) -> None:
    """From the row and its problem alone."""
    ended = TOKENIZER.eos_token_id in row["token_ids"]
    if not ended:
        assert row["finish_reason"] == "length" and row["status"] in ("no_answer", "wrong", "correct"), row
        return
    if fault != "none":
        status, words = {
            "hang": ("timeout", "killed at the deadline of 3 s"),
            "crash": ("error", "exit code -11"),
            "memory": ("error", "took more than environment.memory_gib allows"),
            "raise": ("error", "KeyError: 'nothing' (my_env.py, line"),
        }[fault]
        assert row["status"] == status and words in row["detail"] and "my_env.py:Calculator" in row["detail"], row
        assert row["reward"] is None and row["sampled"] is None
        return
    assert row["status"] in ("no_answer", "wrong", "correct") and row["reward"] is not None
    if row["sampled"] is not None:
        n = int(row["problem"].split("+")[0])
        given = TOKENIZER(f"<|user|>={2 * n}<|assistant|>")["input_ids"]
        first = row["sampled"].index(False)
        assert row["token_ids"][first : first + len(given)] == given
        assert row["sampled"].count(False) == len(given) and row["length"] == row["sampled"].count(True)
        assert row["token_ids"][first - 1] == TOKENIZER.eos_token_id


def assert_sampled_in_context(rows: list[dict[str, Any]], start_model: Path, recipe: Path) -> None:
    """Log-probabilities of the start model's tokens, as float64 transformers has them after all that came before."""
    config = load_config(recipe, [])
    prepared, model = prepare(config), naive_model(start_model)
    prompts = {problem.text: problem.prompt_ids for problem in (*prepared.problems, *prepared.held_out)}
    checked = 0
    for row in rows:
        expected = naive_logprobs(model, prompts[row["problem"]], row["token_ids"], config.rollout.temperature)
        for span in row["versions"]:
            if span["version"] == 0:
                part = slice(span["start"], span["end"])
                np.testing.assert_allclose(row["logprobs"][part], expected.detach().numpy()[part], atol=1e-3)
                checked += span["start"] > row["sampled"].index(False)
    assert checked > 3, "second turns among them"
