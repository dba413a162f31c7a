"""What `python -m launch.train` says to a user's mistakes: one sentence, exit code 2, before any engine starts."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import said, write_mistakes
from places import ROOT

from launch.train import main
from openrs_ray.config.load import load_config
from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.resume import begin_run

MISTAKES = {
    "unknown key": (["--learner.learning_rat", "1e-6"], "learning_rate"),
    "wrong type": (["--run.steps", "many"], "run.steps"),
    "out of range": (["--loss.clip_epsilon", "1.5"], "loss.clip_epsilon"),
    "biased sampling by top-p": (["--rollout.top_p", "0.9"], "biases the ratio"),
    "biased sampling by top-k": (["--rollout.top_k", "20"], "biases the ratio"),
    "no model": (["--model.path", "/nowhere/model"], "/nowhere/model"),
    "no data": (["--data.path", "/nowhere/data.jsonl"], "/nowhere/data.jsonl"),
    "no such column": (["--data.columns.answer", "solution"], "solution"),
    "not enough problems": (["--rollout.problems_per_step", "21"], "rollout.problems_per_step"),
    "all prompts too long": (["--rollout.max_prompt_tokens", "2"], "rollout.max_prompt_tokens"),
    "longer than the model": (["--rollout.max_completion_tokens", "9000"], "tokens"),
    "micro-batch too small": (["--learner.micro_batch_tokens", "20"], "learner.micro_batch_tokens"),
    "does not divide (engines)": (["--engine.tensor_parallel", "2"], "engine.tensor_parallel"),
    "does not divide (micro-batches)": (
        ["--loss.normalization", "local_micro_batch", "--learner.micro_batch_sequences", "3"],
        "do not divide",
    ),
    "shared GPUs, unequal numbers": (
        ["--placement.colocated", "true", "--placement.num_rollout_gpus", "2"],
        "colocated",
    ),
    "more GPUs than the machine has": (
        ["--placement.device", "gpu", "--placement.num_learner_gpus", "16"],
        "17 GPUs and 4.75 CPUs but this machine has",
    ),
    "more CPUs than the machine has": (["--placement.cpus_per_slot", "64"], "256 CPUs but this machine has"),
    "unknown reward": (["--rewards.weights", "{accurasy: 1.0}"], "accuracy"),
    "relative run folder": (["--run.folder", "runs"], "absolute"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], recipe: Path, mistake: str) -> None:
    overrides, expected = MISTAKES[mistake]
    assert expected in said(capsys, recipe, *overrides)


def test_no_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nothing.yaml" in said(capsys, tmp_path / "nothing.yaml", "--run.steps", "1")
    assert main([]) == 2
    assert "RECIPE is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no problems"),
        ('{"problem": "1+1", "answer": "2"}\n{"problem": oops}\n', "Line 2"),
        ("".join('{"problem": "1+1", "answer": ""}\n' for _ in range(9)), "cannot be parsed"),
    ],
)
def test_bad_data_is_named(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path, content: str, expected: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    assert expected in said(capsys, recipe, "--data.path", str(tmp_path / "bad.jsonl"))


def test_a_model_without_chat_template(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path, toy_folder: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in toy_folder.iterdir():
        if "chat_template" not in file.name:
            (bare / file.name).write_bytes(file.read_bytes())
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "chat template" in said(capsys, recipe, "--model.path", str(bare))


def test_a_run_that_never_began_may_be_corrected(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    said(capsys, recipe, "--data.path", "/nowhere/data.jsonl")
    said(capsys, recipe, "--placement.cpus_per_slot", "64")
    assert not (tmp_path / "runs" / "mistake" / "config.json").exists()


def test_a_run_may_not_go_on_with_other_problems(recipe: Path, toy_folder: Path, tmp_path: Path) -> None:
    config = load_config(recipe, [])
    config.run.path.mkdir(parents=True)
    begin_run(config, prepare(config).summary())
    begin_run(config, prepare(config).summary())
    problems = Path(config.data.path)
    problems.write_text(problems.read_text().replace('"101"', '"102"'))
    with pytest.raises(UserError, match="have changed since run mistake began"):
        begin_run(config, prepare(config).summary())


def test_an_existing_run_is_not_overwritten(capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mistake"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert "--resume" in said(capsys, recipe, "--run.steps", "2")


def test_the_command_ends_with_code_2_and_no_traceback(recipe: Path) -> None:
    command = [sys.executable, "-m", "launch.train", str(recipe), "--learner.zero_stage", "4"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "learner.zero_stage" in done.stderr and "Traceback" not in done.stderr
    assert time.monotonic() - began < 60


def test_dry_run_says_what_would_happen_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    assert main([str(recipe), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "4 problems x 4 completions = 16 completions" in text
    assert "20 of 20 problems" in text
    assert not (tmp_path / "runs").exists()


def test_dry_run_says_what_the_evaluation_can_show(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    assert main([str(recipe), "--evaluation.hold_out", "8", "--evaluation.samples", "4", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert (
        "the run's 2 evaluations, 8 problems: about 28.4 points; with 16 samples 14.2, for 192 more completions" in out
    )
    assert "data: 8 problems held out, and 0 rows left out" in out
    assert main([str(recipe), "--dry-run"]) == 0
    assert "Smallest differences" not in capsys.readouterr().out, (
        "without held-out problems there is nothing to compare"
    )


def test_training_problems_are_no_held_out_ones(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    assert "evaluation.hold_out" in said(capsys, recipe, "--evaluation.path", str(tmp_path / "problems.jsonl"))


def test_a_run_that_cannot_fit_into_its_gpus_is_refused(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = ["--placement.device", "gpu", "--placement.gpu_memory_gib", "4", "--learner.gradient_checkpointing", "false"]
    assert main([str(recipe), *gpu, "--dry-run"]) == 0
    assert "fits" in capsys.readouterr().out
    large = [*gpu, "--learner.micro_batch_tokens", "4000000"]
    change = r"the cheapest change that fits is --learner.micro_batch_tokens \d+ \(\d\.\d GiB, on A40 .* s a step, .*\)"
    expected = rf"error: Each learner GPU has 4.0 GiB but needs .*: {change}\.$"
    assert main([str(recipe), *large, "--dry-run"]) == 2
    said_first = capsys.readouterr()
    assert "does not fit" in said_first.out
    assert re.match(expected, said_first.err)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert re.match(expected, said(capsys, recipe, *large))
    assert not (tmp_path / "runs" / "mistake" / "config.json").exists()


def test_a_build_for_the_other_device_is_one_sentence(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.cluster.placement import check_build

    config = load_config(recipe, [])
    monkeypatch.setattr("torch.version.cuda", None)
    check_build(config.placement)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    with pytest.raises(
        UserError, match=r"placed on a CPU .* built for GPUs: set placement.device gpu, or .*OPENRS_BUILD=cpu"
    ):
        check_build(config.placement)


@pytest.fixture(scope="module")
def asked(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory, toy_folder: Path
) -> Iterator[list[Future[tuple[str, float]]]]:
    """What is said to one who asks for more GPUs or CPUs than the cluster has, and after how many seconds."""
    from actors.cluster.placement import reserve
    from openrs_ray.cluster.layout import Device, plan_layout

    recipe = write_mistakes(tmp_path_factory.mktemp("asked"), toy_folder)

    def ask(overrides: list[str], device: Device) -> tuple[str, float]:
        config = load_config(recipe, overrides)
        began = time.monotonic()
        with pytest.raises(UserError) as refused:
            reserve(plan_layout(config, device), config.placement.wait_s)
        return str(refused.value), time.monotonic() - began

    with ThreadPoolExecutor() as both:  # each waits for the cluster to grow
        gpus = both.submit(ask, ["--placement.num_learner_gpus", "3"], "gpu")
        cpus = both.submit(ask, ["--placement.cpus_per_slot", "100"], "cpu")
        yield [gpus, cpus]


@pytest.fixture(scope="module")
def joining(
    asked: object, tmp_path_factory: pytest.TempPathFactory, toy_folder: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Attempts to join clusters that are not there, all at once, and while others are `asked`: they mostly wait."""
    recipe = write_mistakes(tmp_path_factory.mktemp("joining"), toy_folder)
    attempts = [
        subprocess.Popen(
            [sys.executable, "-m", "launch.train", str(recipe), "--run.name", f"joining-{number}"],
            cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number, environment in enumerate(NO_CLUSTERS)
    ]  # fmt: skip
    yield attempts
    for attempt in attempts:
        attempt.kill()
        attempt.communicate()


NO_CLUSTERS = [
    {"RAY_ADDRESS": "127.0.0.1"},  # no port
    {"RAY_ADDRESS": "127.0.0.1:1"},  # nobody there
    {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token", "HOME": "/nonexistent"},  # no token
]


@pytest.mark.parametrize("number", range(len(NO_CLUSTERS)))
def test_a_cluster_that_cannot_be_joined_is_one_sentence(joining: list[subprocess.Popen[str]], number: int) -> None:
    _, said = joining[number].communicate(timeout=120)
    assert joining[number].returncode == 2, said
    assert said.strip().splitlines()[-1].startswith("error: Cannot join a Ray cluster at RAY_ADDRESS=127.0.0.1"), said
    assert "Traceback" not in said


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for field in ("--data.path", "--learner.learning_rate", "--placement.num_rollout_gpus", "--push.probe_tolerance"):
        assert field in text


def test_asking_for_more_than_the_cluster_has_is_said_within_30_seconds(
    asked: list[Future[tuple[str, float]]],
) -> None:
    gpus, cpus = (each.result() for each in asked)
    assert re.search(r"4 GPUs .* has 0 GPUs", gpus[0])
    assert re.search(r"400 CPUs .* has 0 GPUs and 8 CPUs", cpus[0])
    assert max(gpus[1], cpus[1]) < 30
