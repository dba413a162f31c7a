"""A run through two stages, killed inside the second: the real command, with real engines and a real learner."""

import json
import signal
from pathlib import Path

import pytest
from commands import assert_all_gone, descendants, finish, start, steps_done, tail, wait_until, write_recipe

from launch.coverage import main as prove
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import read_rested
from openrs_ray.run.decisions import read_decisions
from openrs_ray.run.metrics import read_metrics

STAGES = [
    {"max_completion_tokens": 12, "max_prompt_tokens": 6, "temperature": 0.6, "until": {"step": 3}},
    {"max_completion_tokens": 24, "max_prompt_tokens": 7, "temperature": 1.2},
]
STEPS = 7


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_run_killed_in_its_second_stage_goes_on_there(tmp_path: Path, toy_folder: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"problem": f"{n}+1", "answer": str(n + 1)} for n in range(80, 120)]  # prompts of 6 and 7 tokens
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = {"max_prompt_tokens": 7, "max_completion_tokens": 24, "stages": STAGES, "staleness": 1}
    changes: dict[str, dict[str, object]] = {
        "data": {"path": str(data), "columns": {"problem": "problem", "answer": "answer"}},
        "rollout": lengths,
        "learner": {"learning_rate": 1e-6},  # a version differs from the next by nearly nothing
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 5, 300, process, log)
    family = descendants(process)
    process.kill()
    assert finish(process, log) == -signal.SIGKILL
    process = start([str(recipe), "--resume"], log)  # at once, beside what is left of the killed one
    assert finish(process, log) == 0, tail(log)
    assert_all_gone(family)

    assert read_attempts(run)[2] >= 4, "it went on from a checkpoint of the second stage"
    assert prove([str(run)]) == 0, "coverage is exact, and every row was sampled with the settings of its stage"
    lines = read_metrics(run)
    assert [line["setting/stage"] for line in lines] == [0, 0, 0, 1, 1, 1, 1]
    assert [line["setting/max_completion_tokens"] for line in lines] == [12] * 3 + [24] * 4
    assert all(line["mismatch_kl"] < 1e-4 for line in lines), "each completion is learned at its own temperature"
    used = current_rows(run).to_pylist()
    assert all(row["length"] <= (12, 24)[row["stage"]] for row in used)
    assert max(row["length"] for row in used if row["stage"]) > 12, "the second stage's are longer"
    mixed = [row for row in used if row["step"] == 4]
    assert {row["stage"] for row in mixed} == {0}, "step 4 learns from completions that stage 1 sampled ahead"
    passed = [row for row in read_rested(run) if row["max_prompt_tokens"] is not None]
    assert passed and {(row["prompt_tokens"], row["max_prompt_tokens"]) for row in passed} == {(7, 6)}
    (decision,) = read_decisions(run)
    assert decision.step == 3 and f"Stage: {decision.sentence}" in log.read_text()
