"""What the evaluator does with completions as they end, with engines replaced by a list of answers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engines import PLACEMENT, TOKENIZER, FakeWorkers, answer, install
from system import make_run

from actors.evaluator import Reading, sample
from actors.rollout.loaded import loaded_engines
from actors.rollout.settings import EngineSettings
from launch.driver.evaluated import Prepared
from launch.evaluate import main
from openrs_ray.config.rollout import Engine
from openrs_ray.errors import RunError
from openrs_ray.evaluation.benchmarks import Prompt, Task, chosen, load_tasks
from openrs_ray.evaluation.check import WARM_UP, Answered, Check
from openrs_ray.evaluation.protocol import Protocol, protocol
from openrs_ray.evaluation.store import CompletionStore
from openrs_ray.evaluation.subject import Subject
from openrs_ray.records import Verdict
from openrs_ray.rewards.pool import CheckPool

SAMPLES = 3


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorkers]:
    return install(monkeypatch)


def tasks_of(folder: Path, answers: Sequence[str]) -> tuple[Task, ...]:
    (folder / "own.jsonl").write_text("\n".join(json.dumps({"problem": "3+4", "answer": a}) for a in answers))
    return load_tasks(*chosen(["own"], {"own": str(folder / "own.jsonl")}), Prompt("plain"), TOKENIZER)


def evaluate(prepared: Prepared, how: Protocol) -> list[tuple[int, int]]:
    """Samples what is missing; returns what was reported."""
    reported: list[tuple[int, int]] = []

    async def work(pool: CheckPool[Answered, Verdict]) -> None:
        async with loaded_engines(prepared.settings, PLACEMENT, print) as engines:
            wanted, told = prepared.wanted(), lambda *figures: reported.append(figures)
            await sample(engines, prepared.settings, prepared.reading, how, wanted, prepared.store, pool, told)

    with CheckPool(Check(how.rules), 1, 10.0, 2.0, WARM_UP) as pool:
        asyncio.run(work(pool))
    return reported


def test_what_ended_before_a_loss_is_kept_and_only_the_rest_is_asked_again(
    tmp_path: Path, engines: type[FakeWorkers]
) -> None:
    store = CompletionStore(tmp_path / "model")
    settings = EngineSettings(Engine(), "model", (1,), max_sequence_tokens=64)
    tasks = {"own": tasks_of(tmp_path, ["7", "8", "7"])}
    prepared = Prepared(
        Subject("a model", "model", "model", None), settings, Reading(TOKENIZER, "<think>"), tasks, store, SAMPLES
    )
    how = protocol("robust", None, samples=SAMPLES)

    store.open({"seed": 42}, {"own": "same"})
    engines.lives = 4
    with pytest.raises(RunError, match="lost its engine"):
        evaluate(prepared, how)
    assert store.finished("own") == {(2, 2), (2, 1), (2, 0), (1, 2)}
    first = {(r.position, r.sample): r.seed for r in engines.asked}
    assert len(first) == len({*first.values()}) == 9
    assert all((r.temperature, r.top_p, r.max_tokens) == (0.6, 0.95, 32768) for r in engines.asked)

    engines.lives = 1000
    store.open({"seed": 42}, {"own": "same"})
    reported = evaluate(prepared, how)
    left = [(problem, number) for problem in range(3) for number in range(3) if problem * 3 + number < 5]
    again = [request.seed for request in engines.asked]
    assert again == [first[position, number] for position, (_, number) in enumerate(left)], "the same seeds as before"
    assert reported[-1] == (5, 5 * len(answer(engines.asked[0]).token_ids))
    assert not prepared.wanted()

    rows = store.rows("own").to_pylist()
    assert all(row["text"] == "<think>3+4</think>\\boxed{7}" and row["answer"] == "7" for row in rows)
    assert {(row["problem_index"], row["status"]) for row in rows} == {(0, "correct"), (1, "wrong"), (2, "correct")}
    assert {(row["problem"], row["prompt"], *row["gold"]) for row in rows} == {
        ("3+4", "<|user|>3+4<|assistant|>", gold) for gold in "78"
    }
    assert prepared.table("own").correct().tolist() == [[1.0] * 3, [0.0] * 3, [1.0] * 3]
    assert len(replace(prepared, samples=SAMPLES + 1).wanted()) == 3, "more samples add to what is there"


def test_the_command_makes_the_tables(tmp_path: Path, engines: type[FakeWorkers], toy_folder: Path) -> None:
    tasks_of(tmp_path, ["7", "8"])
    arguments = [
        str(toy_folder),
        "--start",
        str(toy_folder),
        "--benchmarks",
        "own",
        "--data",
        f"own={tmp_path}/own.jsonl",
    ]
    arguments += ["--samples", "3", "--max-tokens", "24", "--prompt", "plain", "--folder", str(tmp_path / "out")]
    arguments += ["--placement.num_rollout_gpus", "1", "--rewards.processes", "1"]
    assert main(arguments) == 0
    engines.lives = 0  # were anything asked again, it would fail
    assert main(arguments) == 0
    (folder,) = (path.parent for path in (tmp_path / "out").rglob("report.json"))
    report = json.loads((folder / "report.json").read_text())
    for figures in (by_name["own"] for by_name in report["models"].values()):
        assert (figures["average"]["mean"], figures["majority"]["mean"], figures["one_run"]) == (0.5, 0.5, 0.0)
        assert (figures["problems"], figures["samples"], figures["unjudged"], figures["truncated_share"]) == (
            2,
            3,
            0,
            0.0,
        )
    assert report["against_start_model"][toy_folder.name]["own"]["p"] == 1.0
    assert report["power"][toy_folder.name]["own"]["completions"] == 3 * 2 * 3 * 2
    assert (report["settings"]["samples"], report["seeds"]) == (3, {"sampling": 42, "resampling": 0})
    assert main([*arguments, "--seed", "7"]) == 2, "the folder holds samples of another seed"
    assert "50.0 [" in (folder / "report.md").read_text()


def test_runs_of_several_seeds_are_summed_up(
    tmp_path: Path, engines: type[FakeWorkers], toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path))
    tasks_of(tmp_path, ["7", "8"])
    for seed in (1, 2):
        make_run(tmp_path, toy_folder, f"seed-{seed}", seed=seed)
    options = ["--benchmarks", "own", "--data", f"own={tmp_path}/own.jsonl", "--samples", "3", "--max-tokens", "24"]
    options += ["--placement.num_rollout_gpus", "1", "--rewards.processes", "1"]
    assert main(["seed-2", *options]) == 0
    assert main(["seed-1", "seed-2", *options]) == 0
    assert not [r for r in engines.asked if r.position > 5], "two models of 2 x 3: that of seed-2 was there already"
    folder = tmp_path / "evaluations" / "seed-1+seed-2" / "robust"
    report = json.loads((folder / "report.json").read_text())
    assert list(report["models"]) == ["seed-1, step 100", "seed-2, step 100", "start model"]
    runs = report["runs"]["own"]
    assert (runs["mean"]["mean"], runs["deviation"], runs["least"], runs["most"]) == (0.5, 0.0, 0.5, 0.5)
    assert set(report["against_start_model"]) == {"mean of 2 runs", "seed-1, step 100", "seed-2, step 100"}
    assert "## All runs together" in (folder / "report.md").read_text() and not report["differences"]
    engines.lives = 0  # were anything asked again, it would fail
    assert main(["seed-1", *options]) == 0
