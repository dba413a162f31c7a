"""The end of a run: the gain with its interval, what to type next, and plain lines where nobody looks at a terminal."""

import io
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from whole_run import PROBLEMS, STEPS, write_run

from actors.cluster.own_ray import silence_expected_warnings
from launch.cli.typed import continue_with, handed_on
from launch.driver.attempt import HandedOn
from launch.driver.closing import next_lines, show_end
from launch.train import parse
from openrs_ray.common.console import show_markdown, show_table
from openrs_ray.common.files import read_json
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import gain, gain_text
from openrs_ray.records import Group, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.budget import Budget
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.progress import Progress
from openrs_ray.stats import wilson_interval

TYPED = [
    "python",
    "-m",
    "launch.train",
    "launch/recipes/open-rs3.yaml",
    "--run.name",
    "it's mine",
    "--cost.budget_usd",
    "9",
]


def evaluated(folder: Path, step: int, correct: np.ndarray) -> None:
    """Record an evaluation: bool [problems, samples]; the last sample of problem 0 of a later step is not judged."""
    groups = []
    for index, row in enumerate(correct):
        statuses = [Status.CORRECT if right else Status.WRONG for right in row]
        if step and not index:
            statuses[-1] = Status.TIMEOUT
        completions = [
            Rollout(
                index,
                sample,
                np.array([1], np.int32),
                np.ones(1, np.bool_),
                np.zeros(1, np.float32),
                "stop",
                (VersionSpan(step, 0, 1),),
                0,
            )
            for sample in range(len(row))
        ]
        verdicts = [Verdict(status, {}, None if status is Status.TIMEOUT else 1.0) for status in statuses]
        groups.append(Group(index, PROBLEMS[index], tuple(completions), tuple(verdicts)))
    CompletionRecord(folder).write(step, 2, groups, [[""] * correct.shape[1]] * len(correct), None, "evaluation")


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunConfig, Progress]:
    """Seven problems of 4 samples before and after; six of the seven are better afterwards."""
    folder = write_run(tmp_path / "runs" / "mine")
    before, after = np.zeros((7, 4), bool), np.ones((7, 4), bool)
    before[0] = True
    evaluated(folder, 0, before)
    evaluated(folder, STEPS, after)
    progress = Progress(
        step=STEPS, tokens=123, seconds=61.4, correct=7, before=wilson_interval(4, 28), after=wilson_interval(27, 27),
        evaluated=STEPS, held_out=7, ended="steps",
    )  # fmt: skip
    return RunConfig.model_validate(read_json(folder / "config.json")), progress


def shown(run: tuple[RunConfig, Progress], **console: object) -> str:
    out = io.StringIO()
    show_end(Console(file=out, highlight=False, **console), *run, Budget(run[0], age_s=0.0))  # type: ignore[arg-type]
    return out.getvalue()


def test_the_gain_is_paired_over_the_same_problems(run: tuple[RunConfig, Progress]) -> None:
    paired, problems = gain(run[0].run.path, STEPS)
    assert problems == 7
    assert paired.difference.mean == pytest.approx(6 / 7)
    # of the 2^7 patterns of signs only those of the six differences and their mirror are as far from 0
    assert paired.p == pytest.approx(2 / 2**6)
    assert paired.difference.low > 0
    assert gain_text(run[0].run.path, STEPS).startswith("+85.7 points [+")
    with pytest.raises(RunError, match="no evaluation of step 5"):
        gain(run[0].run.path, 5)


def test_no_difference_is_called_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "same")
    right = np.array([[True, False], [True, True], [False, False], [True, False]])
    evaluated(folder, 0, right)
    evaluated(folder, STEPS, ~right)
    assert gain_text(folder, STEPS).endswith("no difference is shown")


def test_piped_the_end_is_plain_lines_of_any_width(run: tuple[RunConfig, Progress]) -> None:
    lines = shown(run, width=40).splitlines()
    pairs = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert pairs["accuracy after"].startswith("100.0 % [") and pairs["steps"] == str(STEPS)
    assert (
        pairs["difference"].startswith("+85.7 points [+") and "paired over the same 7 problems" in pairs["difference"]
    )
    assert pairs["run folder"] == str(run[0].run.path)
    assert not set("\n".join(lines)) & set("┌│└─┃━"), "nothing that needs a width"


def test_on_a_terminal_it_is_a_table(run: tuple[RunConfig, Progress]) -> None:
    text = shown(run, width=200, force_terminal=True)
    assert "│" in text and "+85.7 points" in text


def test_the_end_names_what_comes_next(
    run: tuple[RunConfig, Progress], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "orig_argv", TYPED)
    text = shown(run)
    folder = tmp_path / "runs" / "mine"
    assert f"python -m launch.evaluate {folder}\n" in text and f"python -m launch.coverage {folder}\n" in text
    assert f"{shlex.join([*TYPED, '--resume', '--run.steps', str(2 * STEPS)])}\n" in text
    policy = folder / "checkpoints" / f"step-{STEPS:06d}" / "policy"
    assert str(policy) in text and policy.is_dir()
    config, progress = run
    config = config.model_copy(update={"cost": config.cost.model_copy(update={"budget_usd": 9.0})})
    more = [line for line in next_lines(config, replace(progress, ended="budget")) if "further" in line]
    assert more[0].endswith("--resume --cost.budget_usd 18") and more[0].count("budget_usd") == 1


# The line that was typed


def test_a_stopped_run_continues_with_the_line_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", TYPED)
    assert shlex.split(continue_with()) == [*TYPED, "--resume"]
    assert parse(shlex.split(continue_with())[3:]).resume
    monkeypatch.setattr(sys, "orig_argv", [*TYPED, "--resume"])
    assert shlex.split(continue_with()) == [*TYPED, "--resume"]


def test_openrs_train_is_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for started in (["/venv/bin/python", "/venv/bin/openrs"], ["python", "-m", "launch.main"]):
        monkeypatch.setattr(sys, "orig_argv", [*started, "train", "open-rs3"])
        assert shlex.split(continue_with()) == [*started, "train", "open-rs3", "--resume"]
        monkeypatch.setattr(sys, "orig_argv", [*started, "reproduce", "open-rs3"])
        assert "--resume" not in continue_with()


def test_a_submitted_job_is_submitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [*TYPED, "--resume"])
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert shlex.split(continue_with()) == [
        *("ray", "job", "submit", "--working-dir", ".", "--"), *TYPED, "--resume",
    ]  # fmt: skip


def test_a_run_that_is_started_by_another_command_continues_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed in ([*TYPED, "--restart"], ["python", "-m", "launch.reproduce", "open-rs3"]):
        monkeypatch.setattr(sys, "orig_argv", typed)
        child = handed_on()["OPENRS_TYPED"]
        with monkeypatch.context() as patch:
            patch.setenv("OPENRS_TYPED", child)
            patch.setattr(sys, "orig_argv", [sys.executable, "-m", "launch.train", "recipe.yaml"])
            resume = ["--resume"] if "launch.train" in typed else []  # launch.reproduce goes on by itself
            assert shlex.split(continue_with()) == [*typed, *resume]


def test_a_job_that_is_stopped_is_asked_once_in_whatever_order_its_processes_hear_it() -> None:
    times = iter((10.0, 10.2, 10.4, 20.0, 26.0))
    handed_on = HandedOn(lambda: next(times))
    handed_on.now()
    assert handed_on.repeats(signal.SIGTERM), "Ray's own, after the word of the process that watches"
    assert not handed_on.repeats(signal.SIGTERM), "asked again: at once"
    handed_on.now()
    assert not handed_on.repeats(signal.SIGTERM), "much later"
    assert not HandedOn().repeats(signal.SIGTERM) and not HandedOn().repeats(signal.SIGINT)


# Other tables and reports


def test_rows_of_several_columns_and_reports_are_plain_when_piped() -> None:
    table = Table(title="Needs")
    for heading in ("what", "found"):
        table.add_column(heading)
    table.add_row("[bold]disk[/bold]", "x" * 200)
    out = io.StringIO()
    console = Console(file=out, width=40)
    show_table(console, table)
    show_markdown(console, "## Head\n\n| a | b |\n|---|---|\n| 1 | " + "2" * 100 + " |")
    assert out.getvalue().splitlines() == [
        *("Needs", "what | found", f"disk | {'x' * 200}"),
        *("## Head", "", "| a | b |", "|---|---|", f"| 1 | {'2' * 100} |"),
    ]


def test_only_the_expected_warning_of_ray_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.authentication import authentication_token_setup as ray_setup

    passed: list[str] = []
    silence_expected_warnings()
    monkeypatch.setattr(ray_setup.logger, "isEnabledFor", lambda level: True)  # whatever another test's Ray has set
    monkeypatch.setattr(ray_setup.logger, "callHandlers", lambda record: passed.append(record.getMessage()))
    ray_setup._warn_token_auth_enabled()
    ray_setup._warn_token_auth_disabled()
    assert len(passed) == 1 and passed[0].startswith("Token authentication is disabled")


def test_the_line_names_the_folder_of_runs_that_only_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", TYPED)
    monkeypatch.setenv("OPENRS_RUNS", "/big/runs")
    assert shlex.split(continue_with()) == [*TYPED, "--resume", "--run.folder", "/big/runs"]
    monkeypatch.setattr(sys, "orig_argv", [*TYPED, "--run.folder=/other"])
    assert shlex.split(continue_with()) == [*TYPED, "--run.folder=/other", "--resume"]
