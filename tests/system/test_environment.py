"""An environment of two turns with a tool's result between them: a whole run with pushes between the turns, and over kills."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calculator_run import FIRST_TURN, said
from commands import finish, named, power_cut, start, steps_done, tail, wait_until, write_recipe
from tiny import naive_logprobs, naive_model

from launch.audit import main as audit
from launch.coverage import main as coverage
from openrs_ray.config.load import load_config
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

STEPS = 8


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_two_turns_train_with_exact_marks_and_versions_over_pushes_and_kills(tmp_path: Path, toy_folder: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "rollout": {"staleness": 1},
        "checkpoint": {"every_steps": 2},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log, "calculator_run.py")
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    power_cut(process)

    process = start([str(recipe), "--resume"], log, "calculator_run.py")
    wait_until(lambda: len(read_attempts(run)) == 2 and steps_done(run) >= 5, 300, process, log)
    named(process, "LearnerRank").kill()  # the steps since the checkpoint are trained again from the record
    assert finish(process, log) == 0, tail(log)

    assert len(read_attempts(run)) == 2
    used = check_coverage(run, problems_per_step=4, completions_per_problem=4, staleness=1)
    assert used.exact and used.steps == STEPS and used.completions == STEPS * 16
    assert coverage([str(run)]) == 0, "and every row can be true"
    assert audit([str(run)]) == 0, "several turns are judged and scored again, too"
    rows = current_rows(run).to_pylist()
    assert len(rows) == STEPS * 16
    for row in rows:
        assert_two_turns(row)
    both = [row for row in rows if row["sampled"] is not None]
    through = [row for row in both if row["versions"][0]["version"] < row["versions"][-1]["version"]]
    assert len(both) > STEPS * 12 and len(through) > STEPS, "pushes came between turns"
    assert_sampled_in_context(both, run, toy_folder, recipe)
    figures = [line for line in read_metrics(run) if line["phase"] == "train"]
    for line in figures:
        sampled = [row for row in rows if row["step"] == line["step"]]
        assert line["sampled_tokens"] == sum(row["length"] for row in sampled)
        assert line["completion_tokens"] <= line["sampled_tokens"], "given ones are in no loss"
    assert any(line["age_1_share"] > 0.2 for line in figures if "age_1_share" in line)


def assert_two_turns(row: dict[str, Any]) -> None:
    """Marks, versions and log-probabilities of a row follow from its tokens and its problem's text alone."""
    ids, given = row["token_ids"], said(row["problem"])
    assert len(ids) == len(row["logprobs"]) <= 24
    if row["sampled"] is None:
        assert row["finish_reason"] == "length", "no room for a second turn"
        return
    first = row["sampled"].index(False)
    assert 1 <= first <= FIRST_TURN and ids[first : first + len(given)] == given
    rest = len(ids) - first - len(given)
    assert row["sampled"] == [True] * first + [False] * len(given) + [True] * rest and row["length"] == first + rest
    assert all((value == 0.0) or sampled for value, sampled in zip(row["logprobs"], row["sampled"], strict=True))
    covered = [place for span in row["versions"] for place in range(span["start"], span["end"])]
    assert covered == [place for place, sampled in enumerate(row["sampled"]) if sampled]


def assert_sampled_in_context(rows: list[dict[str, Any]], run: Path, start_model: Path, recipe: Path) -> None:
    """Log-probabilities of each turn's tokens, as float64 transformers has them after all that came before."""
    config = load_config(recipe, [])
    prompts = {problem.text: problem.prompt_ids for problem in prepare(config).problems}
    checkpoints = CheckpointStore(run / "checkpoints").checkpoints()
    folders = {0: start_model, **{c.step: c.policy for c in checkpoints if c.kind == "kept"}}
    checked = 0
    for version, folder in folders.items():
        model = naive_model(folder)
        for row in rows:
            expected = naive_logprobs(model, prompts[row["problem"]], row["token_ids"], config.rollout.temperature)
            for span in row["versions"]:
                if span["version"] == version:
                    part = slice(span["start"], span["end"])
                    np.testing.assert_allclose(row["logprobs"][part], expected.detach().numpy()[part], atol=1e-3)
                    checked += span["start"] > FIRST_TURN
    assert checked > 20, "second turns among them"
