"""The benchmark commands run and say what they measured; that their figures are good is not a test's to say."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from commands import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from launch.performance import completions, learner, models, rewards, rollout, step, trl_run, workload
from openrs_ray.algorithm.advantages import spread


def test_reward_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("DEADLINE_S", 2.0), ("_RESTART_S", 5.0)):  # its figures need not be good
        monkeypatch.setattr(rewards, name, seconds)
    forms = [r"\frac{1}{%d}", r"\sqrt{%d}", "x^2+%d", r"%d\pi", "(1, %d)", r"[%d, \infty)"]
    golds = [form % n for n in (2, 3, 5) for form in forms]  # six for the warm-up, and six for each round
    file, written = tmp_path / "problems.jsonl", tmp_path / "figures.json"
    file.write_text("".join(json.dumps({"answer": gold}) + "\n" for gold in golds))
    arguments = [str(file), "--rounds", "2", "--json", str(written)]
    assert rewards.main(arguments) == 0
    content = json.loads(written.read_text())
    assert content["settings"]["checks"] == 12 and content["machine"]["versions"]["torch"]
    alone, pool, ratio, later = content["figures"]
    assert ratio["values"] == pytest.approx([p / (2 * a) for p, a in zip(pool["values"], alone["values"], strict=True)])
    assert ratio["median"] == median(ratio["values"])
    assert len(later["values"]) == 2 and max(later["values"]) < 2 * rewards.DEADLINE_S


@pytest.mark.parametrize("column", ["answer", "nothing"])
def test_a_wrong_file_or_column_is_exit_code_2(tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "problems.jsonl"
    if column == "nothing":
        file.write_text('{"answer": "1"}\n')
    assert rewards.main([str(file), "--column", column]) == 2
    assert f"Cannot read {file}" in capsys.readouterr().err


def run(name: str, *arguments: str, folder: Path) -> dict[str, dict[str, Any]]:
    """`python -m launch.performance.NAME` on the tiny workload; its figures by name and unit."""
    written = folder / "figures.json"
    command = [
        sys.executable,
        "-m",
        f"launch.performance.{name}",
        "--workload",
        "tiny",
        "--json",
        str(written),
        *arguments,
    ]
    environment = os.environ | {"OPENRS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return {f"{figure['name']}, {figure['unit']}": figure for figure in json.loads(written.read_text())["figures"]}


def values(figures: dict[str, dict[str, Any]], *names: str) -> list[np.ndarray]:
    return [np.array(figures[name]["values"]) for name in names]


@pytest.mark.parametrize(("name", "parameters"), [("random-1.5b", 1_777_088_000), ("random-0.5b", 494_032_768)])
def test_random_models_have_the_size_they_are_named_for(name: str, parameters: int) -> None:
    """As published for DeepSeek-R1-Distill-Qwen-1.5B and Qwen2.5-0.5B."""
    s = models.SHAPES[name]
    hidden, kv = s.hidden_size, s.num_key_value_heads * s.hidden_size // s.num_attention_heads
    attention = 2 * hidden * hidden + hidden + 2 * (hidden * kv + kv)
    layer = attention + 3 * hidden * s.intermediate_size + 2 * hidden
    tables = 1 if s.tie_word_embeddings else 2
    assert tables * s.vocab_size * hidden + s.num_hidden_layers * layer + hidden == parameters


def test_every_id_of_a_random_model_has_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))
    folder = models.model_path("tiny")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size == 512
    problem = r"What is 12 + 30? \boxed{é}"
    assert tokenizer.decode(tokenizer.encode(problem)) == problem
    texts = [tokenizer.decode([token, token]) for token in range(512)]
    assert all(texts) and len(set(texts)) > 256  # single bytes above 127 are no text by themselves


def test_two_sides_take_turns_and_their_first_round_does_not_count() -> None:
    order = []

    async def side(name: str, number: int) -> str:
        order.append(f"{name}{number}")
        return f"{name}{number}"

    a, b = asyncio.run(workload.alternate(3, lambda n: side("a", n), lambda n: side("b", n)))
    assert a == ["a1", "a2", "a3"] and b == ["b1", "b2", "b3"]
    assert order == ["b0", "a0", "a1", "b1", "b2", "a2", "a3", "b3"]


def test_learner_figures_are_those_computed_by_hand() -> None:
    measured = {
        "slow": learner.Measured([2.0, 4.0], 10**9, 30.0),
        "fast": learner.Measured([1.0, 1.0], 10**9, None),
    }
    made = learner.figures(measured, tokens=1000, peak_flops=1e14)
    assert [figure.values for figure in made["slow"]] == [(500, 250), (1, 1), (3.0, 1.5), (30,)]
    assert [figure.values for figure in made["fast"]] == [(1000, 1000), (2, 4), (6.0, 6.0)]


def test_the_coin_gives_every_group_spread() -> None:
    groups = np.array([[trl_run.coin(f"problem {i}, answer {j}") for j in range(6)] for i in range(500)])
    assert spread(groups).all() and groups.min() >= 0 and groups.max() < 1
    assert abs(groups.mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("main", "arguments", "sentence"),
    [
        (rollout.main, ["--workload", "smollm2"], "needs --problems FILE"),
        (rollout.main, ["--workload", "tiny", "--set", "rollout.temprature=1"], "nearest one is rollout.temperature"),
        (rollout.main, ["--workload", "tiny", "--problems", "/nowhere.jsonl"], "No data file at /nowhere.jsonl"),
        (step.main, ["--workload", "tiny"], "needs trl, accelerate: run `bash launch/setup.sh trl`"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    main: Any,
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))
    monkeypatch.setattr(step, "find_spec", lambda name: None)
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_what_a_completion_costs_the_driver(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    size = ["--completions", "32,64", "--engines", "1,3", "--tokens", "16", "--rounds", "1"]
    assert completions.main([*size, "--json", str(written)]) == 0
    figures = {figure["name"]: figure["values"] for figure in json.loads(written.read_text())["figures"]}
    assert len(figures) == 4 * (len(completions.COMPONENTS) + 1) + 1
    for name in completions.COMPONENTS:
        for shape in ("32 completions, 1 engines", "64 completions, 3 engines"):
            (value,) = figures[f"{name}, {shape}"]
            assert 0 < value < 100, f"{name}: {value} ms"
    shape = "64 completions, 3 engines"
    parts = [figures[f"{name}, {shape}"][0] for name in completions.COMPONENTS]
    assert figures[f"in all, {shape}"] == pytest.approx([sum(parts)])


def grown(steps: int, folder: Path, *arguments: str) -> tuple[list[float], list[float]]:
    """MiB of the driver at some times of so many quick steps, and how many objects 1,000 more would leave.

    In a process of its own: in this one, other tests' Ray makes objects, too.
    """
    written = folder / "figures.json"
    command = [sys.executable, "-m", "launch.performance.completions", "--memory-over", str(steps)]
    subprocess.run([*command, "--json", str(written), *arguments], cwd=ROOT, check=True)
    memory, _, objects, _ = json.loads(written.read_text())["figures"]
    return memory["values"], objects["values"]


def test_steps_leave_nothing_in_the_drivers_memory(tmp_path: Path) -> None:
    memory, objects = grown(300, tmp_path)
    assert objects == [0.0], "objects"
    assert memory[-1] - memory[len(memory) // 2] < 4, "MiB"


@pytest.mark.nightly
def test_ten_thousand_steps_leave_nothing_in_the_drivers_memory(tmp_path: Path) -> None:
    memory, objects = grown(10_000, tmp_path)
    assert objects == [0.0] and memory[-1] - memory[len(memory) // 2] < 8


@pytest.mark.nightly
def test_learner(tmp_path: Path) -> None:
    variants = ["learner.gradient_checkpointing=true", "learner.gradient_checkpointing=false learner.zero_stage=2"]
    arguments = [
        "--sequences",
        "4",
        "--tokens",
        "64",
        "--steps",
        "2",
        "--variant",
        variants[0],
        "--variant",
        variants[1],
    ]
    figures = run("learner", *arguments, folder=tmp_path)
    for variant in variants:
        speed, mfu = values(figures, f"{variant}: speed, tokens/s", f"{variant}: MFU, %")
        assert len(speed) == 2
        assert mfu == pytest.approx(100 * 6 * tiny_parameters() * speed / 989e12)


def tiny_parameters() -> int:
    """Written out: embedding and head; per layer query and output, key and value, three of the feed-forward, norms."""
    layer = (64 * 64 + 64) + 64 * 64 + 2 * (64 * 32 + 32) + 3 * 64 * 96 + 2 * 64
    return 2 * 512 * 64 + 2 * layer + 64


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_rollout(tmp_path: Path) -> None:
    figures = run("rollout", "--rounds", "2", folder=tmp_path)
    raw, ours = values(figures, "sampled by raw vLLM, tokens", "sampled by the worker, tokens")
    assert (raw == ours).all() and (raw > 16).all(), "same seeds and weights, so both sample the same tokens"
    ratio, ours, raw = values(
        figures, "rollout worker / raw vLLM, ratio", "rollout worker, tokens/s", "raw vLLM, tokens/s"
    )
    assert ratio == pytest.approx(ours / raw) and len(ratio) == 2


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_push(tmp_path: Path) -> None:
    figures = run("push", "--rounds", "2", folder=tmp_path)
    seconds, rate, bare = values(figures, "push, s", "push, GB/s", "bare transfer, s")
    assert rate * seconds * 1e9 == pytest.approx(4 * tiny_parameters(), rel=0.01), "float32, and a little alignment"
    assert (bare < seconds).all(), "the push does all that the bare transfer does, and more"


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_step_against_its_own_parts(tmp_path: Path) -> None:
    check_step(run("step", "--steps", "2", "--no-trl", folder=tmp_path))


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_step_against_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    figures = run("step", "--steps", "2", folder=tmp_path)
    check_step(figures)
    seconds = [figure for name, figure in figures.items() if name.startswith("TRL") and name.endswith("s/step")]
    assert len(seconds) == len(trl_run.SETTINGS) and all(len(figure["values"]) == 2 for figure in seconds)


def check_step(figures: dict[str, dict[str, Any]]) -> None:
    whole, raw, learning, ratio = values(
        figures,
        "this system, s/step",
        "raw vLLM alone, s/step",
        "learner alone, s/step",
        "this system / both alone, ratio",
    )
    assert ratio == pytest.approx(whole / (raw + learning)) and len(ratio) == 2
    parts = values(figures, "of it, collect_s, s/step", "of it, train_s, s/step", "of it, push_s, s/step")
    assert (whole > sum(parts)).all()
    per_1000 = values(figures, "this system, s/1,000 tokens")[0]
    assert (1000 * whole / per_1000 > 16).all() and (1000 * whole / per_1000 < 1.001 * 16 * 32).all()
