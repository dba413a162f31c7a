"""`python -m launch.evaluate`: a user's mistakes, and two models evaluated for real over a kill."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import ROOT, assert_all_gone, descendants, finish, tail, wait_until
from exportable import change_config
from system import make_run

from launch.evaluate import main
from openrs_ray.errors import UserError
from openrs_ray.evaluation.protocol import Protocol, protocol
from openrs_ray.evaluation.subject import START, Subject, Together, find_subjects, side_by_side
from openrs_ray.models.toy.teach import ToySettings, build_toy

PROBLEMS, SAMPLES = 60, 16
ON_CPU = [
    *("--model.dtype", "float32", "--placement.device", "cpu", "--placement.threads", "1"),
    *("--placement.cpus_per_slot", "0.5", "--engine.cpu_cache_gib", "0.05", "--rewards.processes", "1"),
    *("--engine.start_deadline_s", "120"),  # shorter than every wait here, for it ends with a reason
]


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    rows = [{"problem": f"{n}+{n + 1}", "answer": str(2 * n + 1)} for n in range(100, 100 + PROBLEMS)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_evaluated(tmp_path: Path, toy_folder: Path) -> None:
    run = make_run(tmp_path / "runs", toy_folder)
    for given in (str(run), "open-rs3"):
        found = find_subjects(given, None, None, tmp_path / "runs")
        assert found.run is not None and found.folder == run / "evaluation"
        assert (found.model.label, found.model.published) == ("open-rs3, step 100", "Open-RS3")
        assert found.start is not None and (found.start.label, found.start.path) == (START, str(toy_folder))
    assert find_subjects(str(run), None, 50, tmp_path).model.path == str(run / "checkpoints" / "step-000050" / "policy")
    alone = find_subjects(str(toy_folder), None, None, tmp_path)
    assert alone.run is None and alone.start is None and alone.model.published is None


def test_a_model_is_known_by_both_ends_of_its_files(tmp_path: Path) -> None:
    content = bytearray(3 << 20)
    found = set()
    for changed in (None, 5, -5):
        folder = tmp_path / str(changed)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content)
        if changed is not None:
            (folder / "model.safetensors").write_bytes(content[:changed] + b"x" + content[changed + 1 :])
        found.add(Subject("a model", "folder", str(folder), None).identity())
    assert len(found) == 3
    shutil.copytree(tmp_path / "5", tmp_path / "copy")
    assert Subject("a copy", "other", str(tmp_path / "copy"), None).identity() in found


def together(runs: Path, given: list[str], folder: Path | None = None, how: Protocol | None = None) -> Together:
    found = [find_subjects(name, None, None, runs) for name in given]
    return side_by_side(found, how or protocol("robust", found[0].run), runs, folder)


def test_runs_of_several_seeds_lie_where_each_of_them_lies(tmp_path: Path, toy_folder: Path) -> None:
    folders = [make_run(tmp_path, toy_folder, f"seed-{seed}", seed=seed) for seed in (1, 2, 3)]
    found = together(tmp_path, ["seed-1", "seed-2", "seed-3"])
    alone = together(tmp_path, ["seed-2"])
    assert found.seeds and not found.differences and not alone.seeds
    places = [Path(found.folder / model.folder) for model in found.models]
    assert places == [folder / "evaluation" / "robust" / "step-000100" for folder in folders]
    assert alone.folder / alone.models[0].folder == places[1], "what was sampled alone is not sampled again"
    assert found.start is not None and found.all == [*found.models, found.start]
    assert found.folder / found.start.folder == folders[0] / "evaluation" / "robust" / "start-model"
    assert found.report == tmp_path / "evaluations" / "seed-1+seed-2+seed-3" / "robust"
    elsewhere = together(tmp_path, ["seed-1", "seed-2"], tmp_path / "out")
    assert {model.folder for model in elsewhere.models} == {"seed-1-step-000100", "seed-2-step-000100"}


def test_what_cannot_stand_side_by_side_is_refused(tmp_path: Path, toy_folder: Path) -> None:
    make_run(tmp_path, toy_folder, "one")
    make_run(tmp_path, toy_folder, "asks", asks="2")
    other = make_run(tmp_path, shutil.copytree(toy_folder, tmp_path / "another-model"), "other")
    with pytest.raises(UserError, match="given twice"):
        together(tmp_path, ["one", "one"])
    with pytest.raises(UserError, match="runs or models, not both"):
        together(tmp_path, ["one", str(toy_folder)])
    with pytest.raises(UserError, match=r"different models.*--start"):
        together(tmp_path, ["one", str(other)])
    with pytest.raises(UserError, match=r"differ in data\.system_prompt.*--prompt paper"):
        together(tmp_path, ["one", "asks"])
    paper = protocol("robust", None, prompt="paper")
    assert together(tmp_path, ["one", "asks"], how=paper).differences == ("data.system_prompt",)


@pytest.mark.parametrize(
    ("section", "values", "field"),
    [
        ("data", {"system_as_user": True}, r"data\.system_as_user.*--prompt paper"),
        ("model", {"chat_template": "/other.jinja"}, r"model\.chat_template.*each by itself"),
    ],
)
def test_runs_that_are_asked_differently_are_not_asked_alike(
    section: str, values: dict[str, Any], field: str, tmp_path: Path, toy_folder: Path
) -> None:
    make_run(tmp_path, toy_folder, "one")
    change_config(make_run(tmp_path, toy_folder, "two"), **{section: values})
    for order in (["one", "two"], ["two", "one"]):
        with pytest.raises(UserError, match=f"differ in {field}"):
            together(tmp_path, order)


def test_prompts_of_several_data_sets_are_compared_one_by_one(tmp_path: Path, toy_folder: Path) -> None:
    for name, asked in (("one", ("1", "2")), ("two", ("1", "3")), ("three", ("1",))):
        folder = make_run(tmp_path, toy_folder, name)
        content = json.loads((folder / "config.json").read_text())
        content["data"] = [
            content["data"] | {"name": f"task{number}", "system_prompt": text} for number, text in enumerate(asked)
        ]
        (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"differ in data\[1\]\.system_prompt"):
        together(tmp_path, ["one", "two"])
    for order in (["one", "three"], ["three", "one"]):
        with pytest.raises(UserError, match=r"differ in data\[1\]\.\w+, so"):
            together(tmp_path, order)


def test_a_dry_run_says_what_it_would_take_and_show(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, toy_folder: Path, sums: Path
) -> None:
    arguments = [str(toy_folder), "--start", str(toy_folder), "--benchmarks", "sums", "--data", f"sums={sums}"]
    arguments += ["--max-tokens", "24", "--folder", str(tmp_path / "out"), "--dry-run", "--prompt", "plain"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "1,920 completions are still to be sampled." in said
    assert "sums, 60 problems: about 4.6 points; with 64 samples 2.3, for 5,760 more completions" in said
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "unknown benchmark": (["--benchmarks", "aime26"], "No benchmark aime26"),
    "missing file": (["--benchmarks", "sums", "--data", "sums=/nowhere/sums.jsonl"], "/nowhere/sums.jsonl"),
    "no file named": (["--data", "aime24"], "NAME=FILE"),
    "no such model": (["/nowhere/model"], "/nowhere/model"),
    "a step of no run": (["--step", "5"], "--step is for a run"),
    "nothing to choose": (
        ["--protocol", "as_published", "--temperature", "1"],
        "as_published leaves nothing to choose",
    ),
    "no prompt of a run": (["--prompt", "run"], "needs a run"),
    "longer than the model": (["--max-tokens", "9000"], "--max-tokens"),
    "unknown field": (["--engine.max_sequence", "3"], "engine.max_sequences"),
    "field that has moved": (["--rollout.max_sequences", "3"], "engine.max_sequences"),
    "unknown option": (["--sample", "3"], "sample"),
    "no benchmark": (["--benchmarks", ","], "--benchmarks names none"),
    "below zero": (["--temperature", "-1"], "--temperature is -1"),
    "above one": (["--top-p", "2"], "--top-p is 2"),
    "fields that do not go together": (["--engine.max_batched_tokens", "64"], "must not be below engine.max_sequences"),
    "no whole engine": (["--placement.num_rollout_gpus=3", "--engine.tensor_parallel=2"], "must be a multiple of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, toy_folder: Path, sums: Path, mistake: str
) -> None:
    arguments, expected = MISTAKES[mistake]
    model = [] if arguments[0].startswith("/") else [str(toy_folder)]
    own = (
        []
        if "--benchmarks" in arguments or "--data" in arguments
        else ["--benchmarks", "sums", "--data", f"sums={sums}"]
    )
    assert main([*model, *arguments, *own, "--folder", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and expected in error


def test_no_network_is_one_sentence(tmp_path: Path, toy_folder: Path) -> None:
    command = [sys.executable, "-m", "launch.evaluate", str(toy_folder), "--benchmarks", "aime24"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "out")],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: Benchmark aime24") and last.endswith("--data aime24=FILE."), done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_without_a_policy(tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs", toy_folder, steps=())
    assert main([str(run), "--benchmarks", "aime24"]) == 2
    assert "no checkpoint with a policy" in capsys.readouterr().err
    ready = make_run(tmp_path / "runs", toy_folder, "ready")
    assert main([str(ready), "--step", "7"]) == 2
    assert "no policy of step 7: there are 50, 100" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(1200)
def test_two_models_over_a_kill(tmp_path: Path, toy_folder: Path, sums: Path) -> None:
    trained = tmp_path / "trained"
    build_toy(
        trained, ToySettings(hidden=64, feed_forward=96, layers=2, heads=2, key_value_heads=1, steps=60)
    )  # enough to end its answers, far from enough to be right
    folder, log = tmp_path / "out", tmp_path / "log"
    arguments = [str(trained), "--start", str(toy_folder), "--benchmarks", "sums", "--data", f"sums={sums}"]
    arguments += [
        "--samples",
        str(SAMPLES),
        "--max-tokens",
        "96",
        "--prompt",
        "plain",
        "--folder",
        str(folder),
        *ON_CPU,
    ]
    command = [sys.executable, "-m", "launch.evaluate", *arguments]

    def start(*more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            return subprocess.Popen(
                [*command, *more], cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*.parquet")}

    process = start("--engine.max_sequences", "4")  # so slow that it is not through when it is killed
    wait_until(lambda: bool(files()), 240, process, log)
    family = descendants(process)
    process.kill()
    process.wait(30)
    before = files()
    done_before = sum(pq.read_table(path).num_rows for path in before)
    assert 0 < done_before < 2 * PROBLEMS * SAMPLES, "it must be killed in the middle"

    # At once, beside what is left of the killed one.
    assert finish(start("--placement.num_rollout_gpus", "2"), log) == 0, tail(log)
    assert_all_gone(family)
    assert before.items() <= files().items(), "what was written stays as it was"
    for model in ("trained", "start-model"):
        rows = pq.read_table(sorted((folder / model).glob("*.parquet"))).to_pylist()
        taken = [(row["problem_index"], row["sample"]) for row in rows]
        assert len(taken) == len(set(taken)) == PROBLEMS * SAMPLES, "all sampled, nothing twice"
        assert len({row["seed"] for row in rows}) == len(rows)
        assert {row["sitting"] for row in rows} <= {1, 2}
        assert {row["worker"] for row in rows if row["sitting"] == 2} == {0, 1}, "spread over both engines"
    report = json.loads((folder / "trained" / "report.json").read_text())
    rows = pq.read_table(sorted((folder / "trained").glob("*.parquet"))).to_pylist()
    figures = report["models"]["trained"]["sums"]
    assert figures["average"]["mean"] == pytest.approx(sum(row["status"] == "correct" for row in rows) / len(rows))
    assert figures["mean_tokens"] == pytest.approx(sum(row["length"] for row in rows) / len(rows))
    assert set(report["models"]) == {"trained", START} and "sums" in report["against_start_model"]["trained"]
    assert "| trained: avg@k [95 %] |" in (folder / "trained" / "report.md").read_text()
    assert (folder / "trained" / "report.html").exists()

    after = files()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    again = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, "nothing is left to sample: only the tables are made again"
    assert files() == after and json.loads(again.stdout) == report
    assert json.loads((folder / "trained" / "report.json").read_text()) == report


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_two_models_until_it_is_decided(tmp_path: Path, toy_folder: Path, sums: Path) -> None:
    """The taught toy against one that nobody taught: a difference that needs no second block."""
    command = [sys.executable, "-m", "launch.evaluate", "toy", "--start", str(toy_folder), "--until-decided", "--json"]
    command += ["--benchmarks", "sums", "--data", f"sums={sums}", "--samples", str(SAMPLES), "--max-tokens", "96"]
    command += ["--prompt", "plain", "--folder", str(tmp_path / "out"), "--cost.price_per_gpu_hour", "1", *ON_CPU]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    decision = content["until_decided"]["benchmarks"]["sums"]
    taken = decision["looks"][-1]["samples"]
    assert decision["outcome"] == "better" and taken <= 4
    rows = pq.read_table(sorted((tmp_path / "out" / "toy").glob("*.parquet"))).to_pylist()
    assert {row["sample"] for row in rows} == {*range(taken)} and len(rows) == PROBLEMS * taken
    assert decision["saved"]["completions"] == 2 * PROBLEMS * (SAMPLES - taken) and decision["saved"]["dollars"] > 0
    assert content["against_start_model"]["toy"]["sums"]["difference"]["low"] > 0
