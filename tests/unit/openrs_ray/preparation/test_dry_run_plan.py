"""The dry run's plan: without a network, in time and money, on the disk."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from places import ROOT
from transformers import AutoConfig, Qwen2Config

from launch.shapes import main as write_shapes
from launch.train import _prepare, main
from openrs_ray.cluster.cards import card
from openrs_ray.cluster.disk import disk_parts, disk_text
from openrs_ray.cluster.forecast import BEST, Assumed, forecast_under
from openrs_ray.cluster.forecast_text import forecast_text
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import memory_text
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import shape_values, shipped, shipped_shape
from openrs_ray.common import hub
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.bundled import MODELS
from openrs_ray.preparation.dry_run import _learner_text, _rollout_text
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.budget import Budget
from openrs_ray.run.resume import begin_run

RECIPES = ROOT / "launch" / "recipes"
R1_DISTILL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
NOBODY = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0"}
GIB = 2**30


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    found = shipped_shape(R1_DISTILL)
    assert found is not None
    return found


def paper(*overrides: str) -> RunConfig:
    return load_config(RECIPES / "open-rs3.yaml", list(overrides))


def dry_run(recipe: Path, home: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A dry run in a process of its own, with an empty cache and a Hub that nobody answers for."""
    return subprocess.run(
        [sys.executable, "-m", "launch.train", str(recipe), *overrides, "--dry-run"],
        cwd=ROOT,
        env=os.environ | NOBODY | {"HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )


# Without a network


def test_without_a_network_a_hub_recipe_is_planned_and_says_what_was_not_checked(tmp_path: Path) -> None:
    began = time.monotonic()
    done = dry_run(RECIPES / "open-rs3.yaml", tmp_path)
    assert done.returncode == 2
    assert time.monotonic() - began < 25, "most of it is imports"
    for part in ("72 completions", "rollout: 40.6 in a push", "forecast (a plan", "$ ", "disk: up to"):
        assert part in done.stdout, part
    assert "Retry" not in done.stdout + done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("error: The Hub cannot be reached (http://127.0.0.1:1") and R1_DISTILL in sentence
    assert "golds were not checked" in sentence


def test_data_on_an_unreachable_hub_is_named(tmp_path: Path, toy_folder: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    done = dry_run(write(recipe, toy_folder), tmp_path, "--data.path", "owner/problems")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "owner/problems is not in this machine's cache" in done.stderr and len(done.stderr.splitlines()) == 1
    assert "disk: up to" in done.stdout


def write(recipe: Path, model: Path) -> Path:
    problems = recipe.with_name("problems.jsonl")
    problems.write_text("".join(json.dumps({"problem": f"{n}+1", "answer": str(n + 1)}) + "\n" for n in range(20)))
    sections = {
        "run": {"name": "planned", "folder": str(recipe.parent / "runs"), "steps": 2},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": str(problems)},
        "rollout": {
            "problems_per_step": 4, "completions_per_problem": 4, "max_prompt_tokens": 16, "max_completion_tokens": 24,
        },
        "placement": {"device": "cpu", "num_learner_gpus": 1},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(sections))
    return recipe


def test_what_lies_in_the_cache_needs_no_network(tmp_path: Path, toy_folder: Path) -> None:
    repository = tmp_path / "hub" / "models--owner--toy"
    shutil.copytree(toy_folder, repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    done = dry_run(write(tmp_path / "recipe.yaml", toy_folder), tmp_path, "--model.path", "owner/toy")
    assert done.returncode == 0, done.stderr
    assert "20 of 20 problems" in done.stdout and not done.stderr


def test_the_plan_of_a_run_that_has_begun_knows_it(
    tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(write(tmp_path / "recipe.yaml", toy_folder))
    small = ("--placement.device=gpu", "--placement.gpu_memory_gib=1")
    assert main([recipe, *small, "--dry-run", "--resume"]) == 2
    assert "no setting is enough, take GPUs with more memory" in capsys.readouterr().err
    config = load_config(Path(recipe), list(small))
    config.run.path.mkdir(parents=True)
    Budget(config, age_s=0.0).write()
    begin_run(config, prepare(config).summary())
    sentence = "no setting that run planned may still change is enough on this GPU"
    assert main([recipe, *small, "--dry-run", "--resume"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match=sentence):
        _prepare(config, Machine(GIB))
    assert main([recipe, *small, "--learner.optimizer=adamw_8bit", "--dry-run", "--resume"]) == 2
    assert "learner.optimizer was" in capsys.readouterr().err, "first, since advice is about settings that may stay"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test set the Hub's address, and gives everything back that the answer changes."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    if "datasets" in sys.modules:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    hub.problem.cache_clear()
    yield monkeypatch
    hub.problem.cache_clear()


def test_a_hub_that_never_answers_is_given_up_within_seconds(endpoint: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert hub.problem() is not None
        assert time.monotonic() - began < 10
    assert hub.unreachable("owner/name", "give its folder") is not None


def test_shapes_are_those_of_the_real_models() -> None:
    sizes = {
        R1_DISTILL: 1_777_088_000,
        "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
        "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    }
    for name, parameters in sizes.items():  # as their safetensors headers add up
        found = shipped_shape(name)
        assert found is not None and found.parameters == parameters, name
    assert shipped_shape("owner/unknown") is None


def test_the_model_of_every_training_recipe_is_shipped() -> None:
    recipes = [yaml.safe_load(file.read_text()) for file in RECIPES.glob("*.yaml")]
    named = {recipe["model"]["path"] for recipe in recipes if isinstance(recipe.get("model"), dict)}
    assert R1_DISTILL in named and named - {*MODELS} <= shipped().keys()


def test_shape_values_are_enough_for_the_whole_shape() -> None:
    config = Qwen2Config(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=100, tie_word_embeddings=True)  # fmt: skip
    values = json.loads(json.dumps(shape_values(config)))
    assert ModelShape.of(AutoConfig.for_model(values.pop("model_type"), **values)) == ModelShape.of(config)


def test_a_command_writes_the_shapes(tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shapes.json"
    file.write_text("{}")
    monkeypatch.setattr("openrs_ray.cluster.shapes.FILE", file)
    monkeypatch.setattr("launch.shapes.FILE", file)
    assert write_shapes([str(toy_folder)]) == 0
    assert shipped_shape(str(toy_folder)) == ModelShape.of(AutoConfig.from_pretrained(toy_folder))
    assert write_shapes([str(tmp_path / "nothing")]) == 2


# Time and money


@pytest.mark.parametrize(
    ("overrides", "seconds"),
    [
        (("--rollout.staleness", "0"), 66),
        ((), 44),
        (("--placement.num_rollout_gpus", "2", "--placement.num_learner_gpus", "2"), 36),
        (
            ("--placement.colocated=true", "--placement.num_rollout_gpus=4", "--placement.num_learner_gpus=4",
             "--engine.gpu_memory_fraction=0.3"), 50,
        ),
    ],
)  # fmt: skip
def test_the_arithmetic_agrees_with_an_independent_roofline(
    shape: ModelShape, overrides: tuple[str, ...], seconds: float
) -> None:
    """A roofline that gives the authors' own set-up (A40s, mean length 2,601) 21.6 h, where they report 24."""
    assumed = Assumed(length=2601 / 3584, prompt=0.5, bandwidth=0.75, compute=0.4, host_gb_per_s=60)
    a40 = card("NVIDIA A40")
    assert a40 is not None
    found = forecast_under(assumed, paper(*overrides), shape, a40, 44 * GIB, 0)
    assert found.step_s == pytest.approx(seconds, rel=0.2)
    assert found.hours == pytest.approx(500 * found.step_s / 3600)


def test_a_forecast_stands_beside_the_limit(shape: ModelShape) -> None:
    a40 = card("A40")
    for budget, said in (("42", "is enough"), ("10", "may end it before"), ("1", "ends it before")):
        first, assumptions = forecast_text(paper("--cost.budget_usd", budget), shape, a40, 44 * GIB, 128)
        assert "plan" in first and "nothing of it measured" in first and f"cost.budget_usd {budget} {said}" in first
        assert "A40" in assumptions and "30% to 100%" in assumptions
    without_price = ("--cost.price_per_gpu_hour", "null", "--cost.budget_usd", "null")
    assert "$" not in forecast_text(paper(*without_price), shape, a40, 44 * GIB, 128)[0]
    assert "placement.gpu_name" in forecast_text(paper(), shape, None, 44 * GIB, 128)[0]


STAGES = (
    "--rollout.stages",
    "[{max_completion_tokens: 1024, until: {step: 100}}, {max_completion_tokens: 2048, until: {truncated_share_below: 0.1}}, "
    "{max_completion_tokens: 3584, max_prompt_tokens: 512}]",
)


def test_a_staged_run_takes_what_runs_of_its_stages_would(shape: ModelShape) -> None:
    """500 steps: 100, 200 and 200 of them in runs of 1,024, 2,048 and 3,584 tokens; evaluations at the longest."""
    a40 = card("A40")
    assert a40 is not None
    alone = [
        forecast_under(BEST, paper("--rollout.max_completion_tokens", str(most)), shape, a40, 44 * GIB, 0).step_s
        for most in (1024, 2048, 3584)
    ]
    staged = forecast_under(BEST, paper(*STAGES), shape, a40, 44 * GIB, 128)
    seconds = 100 * alone[0] + 200 * alone[1] + 200 * alone[2]
    assert staged.step_s == pytest.approx(seconds / 500)
    longest, without = (forecast_under(BEST, paper(), shape, a40, 44 * GIB, held_out) for held_out in (128, 0))
    assert staged.hours == pytest.approx(seconds / 3600 + longest.hours - without.hours)
    lines = "\n".join(forecast_text(paper(*STAGES), shape, a40, 44 * GIB, 128))
    assert "stage 1: 100 steps of completions of up to 1,024 tokens" in lines and "stage 3: 200 steps" in lines
    assert "of up to" not in "".join(forecast_text(paper(), shape, a40, 44 * GIB, 128))


def test_memory_is_planned_for_the_longest_stage_and_says_what_each_holds(shape: ModelShape) -> None:
    one, staged = ("\n".join(memory_text(paper(*more), shape, 44 * GIB)) for more in ((), STAGES))
    assert staged.startswith(one.partition(" at once")[0])
    (counts,) = [line for line in staged.splitlines() if "in stage 1" in line]
    held = [int(count) for count in re.findall(r"(\d+) of \d+", counts.partition(" at once; ")[2])]
    assert held == pytest.approx([held[2] * 4096 / 1536, held[2] * 4096 / 2560, held[2]], rel=0.01) and held[2] > 100


def test_more_evaluation_takes_more_hours(shape: ModelShape) -> None:
    a40 = card("A40")
    assert a40 is not None
    few, many = (
        forecast_under(BEST, paper(*more), shape, a40, 44 * GIB, 128) for more in ((), ("--evaluation.samples", "16"))
    )
    assert many.hours > few.hours and many.step_s == few.step_s


@pytest.mark.parametrize(
    ("reported", "meant"),
    [
        ("NVIDIA A40", "A40"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"), ("NVIDIA A100 80GB PCIe", "A100 80GB"), ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA H200", "H200"), ("NVIDIA A10G", "A10G"), ("a40", "A40"),
    ],
)  # fmt: skip
def test_gpus_are_known_by_what_nvidia_smi_calls_them(reported: str, meant: str) -> None:
    found = card(reported)
    assert found is not None and found.name == meant
    assert card("Quadro P400") is None


def test_on_a_cpu_there_is_no_forecast(capsys: pytest.CaptureFixture[str], tmp_path: Path, toy_folder: Path) -> None:
    assert main([str(write(tmp_path / "recipe.yaml", toy_folder)), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "forecast" not in said and "planned for GPUs only" in said and "disk: up to" in said


# Disk


def test_the_disk_is_compared_with_what_is_free(
    shape: ModelShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = paper("--run.folder", str(tmp_path))
    needed = sum(disk_parts(config, shape, 128).values())
    policy, state = 2 * shape.parameters, (2 + 12) * shape.parameters
    # While the tenth is written: 2 complete ones, 7 policies, one to resume from.
    assert needed == pytest.approx(4 * state + (1 + 2 + 7) * policy, rel=0.05)
    monkeypatch.setattr("openrs_ray.cluster.disk.disk_bytes", lambda folder: 2 * needed)
    assert "WARNING" not in disk_text(config, shape, 128)[0]
    monkeypatch.setattr("openrs_ray.cluster.disk.disk_bytes", lambda folder: needed / 2)
    assert "WARNING: only" in disk_text(config, shape, 128)[0] and "keep_last" in disk_text(config, shape, 128)[0]
    assert sum(disk_parts(paper("--checkpoint.keep_policies", "false"), shape, 128).values()) < needed - 6 * policy


def test_groups_in_flight_and_updates_are_said_where_they_are_set() -> None:
    asked = paper("--rollout.in_flight", "18", "--learner.updates_per_batch", "4")
    assert _rollout_text(asked).endswith("ahead of the learner, at most 18 groups at once")
    assert _learner_text(asked).endswith(" tokens, 4 optimizer steps of them")
    assert "groups at once" not in _rollout_text(paper()) and "optimizer steps" not in _learner_text(paper())
