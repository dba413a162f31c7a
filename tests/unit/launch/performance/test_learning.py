"""Variants are trained once each and compared on the same problems, with figures that can be counted by hand."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from launch.performance import learning
from openrs_ray.common.files import append_line, write_json
from openrs_ray.errors import RunError
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.progress import Progress

PROBLEMS, STEPS = 40, 3


def evaluated(right: np.ndarray) -> list[Group]:
    groups = []
    for position, correct in enumerate(right):
        tokens, logprobs = np.array([3], dtype=np.int32), np.zeros(1, dtype=np.float32)
        rollout = Rollout.of([Completion(position, 0, tokens, logprobs, "stop", (VersionSpan(0, 0, 1),), 0)])
        status = Status.CORRECT if correct else Status.WRONG
        problem = Problem(position, f"{position} + 1", (1, 2), (str(position + 1),))
        groups.append(Group(position, problem, (rollout,), (Verdict(status, {}, float(correct)),)))
    return groups


class FakeRuns:
    """Writes the files of a run without training: `right[variant]` problems solved at the end, one fewer per later seed."""

    def __init__(self, **right: int) -> None:
        self.right = right
        self.more: dict[tuple[str, int], int] = {}
        """Problems solved in addition, by variant and seed."""
        self.trained: list[str] = []

    def __call__(self, trial: learning.Trial) -> None:
        self.trained.append(f"{trial.variant} {trial.config.run.seed}")
        if trial.variant not in self.right:
            raise RunError("the mismatch is too large")
        folder = trial.folder
        folder.mkdir(parents=True)
        write_json(folder / "config.json", trial.config.model_dump(mode="json"))
        start_attempt(folder, 0, AttemptSettings.of(trial.config))
        record, at_end = CompletionRecord(folder), self.right[trial.variant] - (trial.config.run.seed - 42)
        at_end += self.more.get((trial.variant, trial.config.run.seed), 0)
        for step, right in ((0, 10), (STEPS, at_end)):
            record.write(step, 1, evaluated(np.arange(PROBLEMS) < right), [[""]] * PROBLEMS, None, "evaluation")
        for step in range(1, STEPS + 1):
            figures = {"step_s": 0.5 * step, "mismatch_kl": 0.001 * step, "age_mean": 0.5}
            append_line(folder / "metrics.jsonl", {"step": step, "attempt": 1, "phase": "train"} | figures)
        write_json(folder / "result.json", asdict(Progress(step=STEPS, ended="steps")))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    fake = FakeRuns(full=30, lora=34)
    monkeypatch.setattr(learning, "train", fake)
    return fake


def call(folder: Path, *arguments: str) -> tuple[int, dict[str, list[float]]]:
    file = folder / "figures.json"
    common = ["--folder", str(folder / "runs"), "--json", str(file), "--seeds", "42", "43"]
    code = learning.main([*common, "--variant", "full", f"run.steps={STEPS}", *arguments])
    content = json.loads(file.read_text()) if file.exists() else {"figures": []}
    return code, {figure["name"]: figure["values"] for figure in content["figures"]}


LORA = ("--variant", "lora", f"run.steps={STEPS}", "learner.learning_rate=1e-3")


def test_variants_are_compared_over_all_seeds(
    tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    code, figures = call(tmp_path, *LORA)
    assert code == 0
    assert runs.trained == ["full 42", "lora 42", "full 43", "lora 43"]
    assert figures["full: accuracy at the start"][0] == 10 / 40
    assert figures["full: accuracy at the end"][0] == pytest.approx((30 + 29) / 80)
    assert figures["lora: accuracy at the end"][0] == pytest.approx((34 + 33) / 80)
    mean, low, high = figures["lora: paired difference"]
    # Four problems that only lora solves with each seed, five of 40 that differ: all sign patterns of them can be counted.
    assert mean == pytest.approx(4 / 40) and low < mean < high < 0.25
    assert figures["full: step_s"] == [1.0, 1.0] and figures["full: mismatch_kl"] == [0.003, 0.003]
    shown = capsys.readouterr().out
    assert "+10.0 [" in shown and "72.5, 75.0 %" in shown and "82.5, 85.0 %" in shown


def test_from_three_seeds_on_the_difference_has_an_interval_over_them(
    tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lora: difference over the seeds" not in call(tmp_path, *LORA)[1]
    runs.more["lora", 44] = -10
    code, figures = call(tmp_path, *LORA, "--seeds", "42", "43", "44")
    assert code == 0
    # Differences of 4, 4 and -6 of 40 problems; Student's quantile with two degrees of freedom is 4.303 (any table).
    differences = np.array([4, 4, -6]) / 40
    half = 4.303 * differences.std(ddof=1) / 3**0.5
    expected = [differences.mean(), differences.mean() - half, differences.mean() + half]
    assert figures["lora: difference over the seeds"] == pytest.approx(expected, rel=1e-3)
    assert f"{100 * expected[1]:+.1f}" in "".join(capsys.readouterr().out.split())


def test_a_finished_run_is_used_again_and_a_changed_one_is_not(tmp_path: Path, runs: FakeRuns) -> None:
    before = call(tmp_path, *LORA)
    runs.trained.clear()
    assert call(tmp_path, *LORA) == before and runs.trained == []
    call(tmp_path, *LORA[:-1], "learner.learning_rate=2e-3")
    assert runs.trained == ["lora 42", "lora 43"]


def test_an_unfinished_run_is_gone_on_with(tmp_path: Path, runs: FakeRuns) -> None:
    call(tmp_path, *LORA)
    (folder,) = (tmp_path / "runs").glob("learning-lora-43-*")
    write_json(folder / "result.json", asdict(Progress(step=STEPS - 1, ended="budget")))
    trial = learning.trial("quickstart", LORA[1:], 43, tmp_path / "runs")
    assert trial.folder == folder and not trial.finished and "--resume" in trial.arguments


def test_a_variant_that_breaks_is_named_and_the_others_count(
    tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    code, figures = call(tmp_path, "--variant", "worse", f"run.steps={STEPS}", "learner.learning_rate=1")
    assert code == 0 and "full: accuracy at the end" in figures
    assert "worse, seed 42 failed" in capsys.readouterr().out
    runs.right.clear()
    assert learning.main(["--folder", str(tmp_path / "other")]) == 1


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        (["full"], "Two variants have the same name"),
        (["lora", "learner.learning_rat=1"], "learning_rat"),
        (["a/b"], "run.name"),
        (["blind", "evaluation.path=null"], "no held-out problems"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(
    tmp_path: Path, runs: FakeRuns, capsys: pytest.CaptureFixture[str], variant: list[str], sentence: str
) -> None:
    assert call(tmp_path, "--variant", *variant)[0] == 2
    assert sentence in capsys.readouterr().err and not runs.trained
