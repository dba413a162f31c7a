"""`python -m launch.reproduce`: the whole of it on the toy, killed and given again; and what it says of mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import ROOT, assert_all_gone, descendants, finish, tail, wait_until
from rich.console import Console

from launch.reproduce import Costs, Reproduction, best_checkpoint, cost_table, main
from openrs_ray.config.load import load_config
from openrs_ray.evaluation.protocol import protocol
from openrs_ray.evaluation.subject import Subject
from openrs_ray.records import Problem
from openrs_ray.run.account import Spent

STEPS, KEPT, HELD_OUT, BENCHMARK = 6, 3, 40, 60


def subject(step: int) -> Subject:
    return Subject(f"run, step {step}", f"step-{step}", "path", None)


def test_the_best_on_held_out_problems_is_chosen_of_equals_the_earliest() -> None:
    means = {50: 0.5, 100: 0.625, 150: 0.625, 200: 0.25}
    models = {subject(step).label: {"held_out": {"average": {"mean": mean}}} for step, mean in means.items()}
    assert best_checkpoint([subject(step) for step in means], {"models": models}) == subject(100)


def test_costs_add_up_and_stand_beside_the_papers() -> None:
    parts = [Costs("training", "6,000 x 6", Spent(42.0, 95.5, 23.875)), Costs("choice", "", Spent(0.5, 1.25, 0.3125))]
    rows = {row[0]: row[1:] for row in cost_table(parts)["rows"]}
    assert rows["training"] == ["6,000 x 6", "23.88", "95.50", "42.00"]
    assert rows["all of it"][1:] == ["24.19", "96.75", "42.50"]
    assert rows["published: Open-RS, 4 x A40 48 GB"] == ["7k x 6", "24", "96", "42"]
    assert rows["published: rStar-Math-7B, 80 x H100 80 GB and 60 x A100 40 GB"] == ["3.647M x 16", "-", "-", "-"]


def test_the_choice_asks_as_the_training_does(tmp_path: Path, toy_folder: Path) -> None:
    given = ["--run.folder", str(tmp_path), "--model.path", str(toy_folder), "--rewards.extraction", "any"]
    config = load_config(ROOT / "launch" / "recipes" / "quickstart.yaml", [*given, "--data.suffix", "?"])
    work = Reproduction(config, protocol("robust", config), (), 3, [], Console())
    choosing = work._choosing([Problem(0, "3+4", (1, 2), ("7", "7.0"))])
    assert (choosing.how.rules, choosing.how.samples, choosing.how.temperature) == ("any", 3, 0.6)
    assert (choosing.how.max_tokens, choosing.how.top_p, choosing.how.prompt.data) == (48, 1.0, config.data)
    (benchmark,) = choosing.benchmarks
    assert json.loads(Path(benchmark.source).read_text()) == {"problem": "3+4", "answer": ["7", "7.0"]}


def arguments(runs: Path, benchmark: Path) -> list[str]:
    fields = {
        "run.folder": runs,
        "run.name": "toy-paper",
        "run.steps": STEPS,
        "evaluation.path": "null",
        "evaluation.problems": "null",
        "evaluation.hold_out": HELD_OUT,
        "rollout.problems_per_step": 16,
        "checkpoint.every_steps": KEPT,
        "cost.price_per_gpu_hour": 0.44,
        "cost.budget_usd": 42,
    }
    given = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    data = ["--benchmarks", "sums", "--data", f"sums={benchmark}", "--samples", "2", "--held-out-samples", "2"]
    return ["quickstart", *data, "--max-tokens", "48", *given]


MISTAKES = {
    "no such recipe": (["open-rs4"], "open-rs4"),
    "no held-out problems": (["quickstart", "--evaluation.path", "null"], "evaluation.hold_out"),
    "no benchmark": (["quickstart", "--benchmarks", ","], "--benchmarks names none"),
    "a larger machine": (["quickstart", "--placement.cpus_per_slot", "64"], "192 CPUs but this machine has"),
    "held-out problems of a benchmark": (
        ["quickstart", "--benchmarks", "own", "--data", "own=toy-heldout", "--max-tokens", "24"],
        "that no benchmark has",
    ),
    "two kinds of held-out problems": (["quickstart", "--evaluation.hold_out", "9"], "leave out evaluation.path"),
    "unknown field": (["quickstart", "--learner.rate", "1"], "learner.rate"),
    "missing benchmark": (["quickstart", "--benchmarks", "sums"], "--data sums=FILE"),
    "nothing to train on": (
        [
            *("quickstart", "--evaluation.path", "null", "--evaluation.problems", "null"),
            *("--evaluation.hold_out", "1000000"),
        ],
        "usable problems besides the",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, mistake: str) -> None:
    given, expected = MISTAKES[mistake]
    assert main([*given, "--run.folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and expected in error
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_run_under_the_same_name_must_be_the_same_experiment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, toy_folder: Path
) -> None:
    given = ["quickstart", "--run.folder", str(tmp_path), "--model.path", str(toy_folder)]
    config = load_config(ROOT / "launch" / "recipes" / "quickstart.yaml", given[1:])
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "config.json").write_text(config.model_dump_json())
    (tmp_path / "quickstart" / "result.json").write_text(json.dumps({"step": 50, "ended": "steps"}))
    assert main([*given, "--fidelity", "as_published"]) == 2
    assert "fidelity" in capsys.readouterr().err
    assert not (tmp_path / "quickstart" / "reproduction").exists()


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_the_whole_of_it_over_kills(tmp_path: Path) -> None:
    benchmark = tmp_path / "sums.jsonl"
    sums = ((f"{n}+{n + 57}", str(2 * n + 57)) for n in range(200, 200 + BENCHMARK))
    benchmark.write_text("".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in sums))
    run, log = tmp_path / "toy-paper", tmp_path / "log"
    command = [sys.executable, "-m", "launch.reproduce", *arguments(tmp_path, benchmark)]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            return subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def kill_when(happened: Path) -> None:
        process = start()
        wait_until(lambda: happened.exists(), 240, process, log)
        family = descendants(process)
        process.kill()
        assert_all_gone(family)

    kill_when(run / "completions")  # in the middle of training
    benchmarked = sorted((run / "evaluation" / "robust" / "start-model").glob("*.parquet"))
    assert sum(pq.read_table(path).num_rows for path in benchmarked) == BENCHMARK * 2, "the start model came first"
    before = {path: path.read_bytes() for path in benchmarked}

    assert finish(start(), log) == 0, tail(log)
    assert {path: path.read_bytes() for path in benchmarked} == before, "what was sampled is not sampled again"
    report = json.loads((run / "reproduction" / "report.json").read_text())
    choice, costs = report["more"]
    labels = [row[0] for row in choice["rows"][1:]]
    assert labels == [f"toy-paper, step {step}" for step in range(KEPT, STEPS + 1, KEPT)] + ["start model"]
    (chosen,) = (row[0] for row in choice["rows"] if row[-1] == "chosen")
    assert set(report["models"]) == {chosen, "start model"}
    assert report["models"][chosen]["sums"]["problems"] == BENCHMARK
    means = {row[0]: float(row[1].partition(" ")[0]) for row in choice["rows"][1:-1]}
    assert means[chosen] == max(means.values())

    held_out = [json.loads(line) for line in (run / "evaluation" / "held_out.jsonl").read_text().splitlines()]
    assert len(held_out) == HELD_OUT
    trained = pq.read_table(sorted((run / "completions").glob("*.parquet"))).to_pylist()
    trained_on = {row["problem"] for row in trained if row["phase"] == "train"}
    assert len(trained_on) > 16 and not trained_on & {row["problem"] for row in held_out}, (
        "nothing held out is trained on"
    )

    dollars = {row[0]: row[4] for row in costs["rows"][1:6]}
    parts = [float(cost) for name, cost in dollars.items() if name != "all of it"]
    assert len(parts) == 4 and float(dollars["all of it"]) == pytest.approx(sum(parts), abs=0.03)
    spent = json.loads((run / "cost.json").read_text())["spent"]
    assert spent["gpu_hours"] == pytest.approx(2 * spent["hours"]) and spent["dollars"] == pytest.approx(
        0.44 * spent["gpu_hours"]
    )

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    again = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, "nothing is left to do: only the tables are made again"
    assert json.loads(again.stdout) == report and report["choice"]["chosen"] == chosen
    assert json.loads((run / "reproduction" / "report.json").read_text()) == report
