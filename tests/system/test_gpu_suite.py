"""The GPU suite: its runner with made-up parts, and a dry run of the real ones on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import ROOT
from transformers import Qwen2Config

from launch.performance import push, rollout, step, workload
from launch.performance.gpu_suite import __main__ as suite_command
from launch.performance.gpu_suite import comparisons, memory, runs
from launch.performance.gpu_suite.comparisons import row_of
from launch.performance.gpu_suite.one import run
from launch.performance.gpu_suite.parts import PARTS, function_of
from launch.performance.gpu_suite.rows import Row, Skip, aim, at_most, noted, true
from launch.performance.gpu_suite.runner import Part, Suite, started
from launch.performance.gpu_suite.table import markdown
from launch.performance.models import SHAPES
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig

PASSES = "import json, sys; json.dump({'state': 'passed', 'reason': '', 'rows': []}, open(sys.argv[1], 'w'))"
CRASHES = "import os; os.abort()"
HANGS = """
import json, subprocess, sys, time
json.dump({'state': 'running', 'rows': [{'what': 'before', 'figure': '1', 'target': '', 'verdict': ''}]}, open(sys.argv[1], 'w'))
for other_session in (False, True):  # deaf to SIGTERM, one of them outside the process group
    deaf = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True); time.sleep(600)'
    subprocess.Popen([sys.executable, '-c', deaf], start_new_session=other_session)
time.sleep(600)
"""


def made_up(folder: Path, scripts: Mapping[str, str], limit_s: float = 60, **setting: str) -> Suite:
    return Suite(
        [Part(name, f"about {name}", 0, limit_s) for name in scripts],
        lambda part, file: [sys.executable, "-c", scripts[part.name], str(file)],
        folder,
        setting,
        {},
    )


def states(suite: Suite, *named: str, minutes: float = 5) -> dict[str, str | None]:
    return {part.name: result and result["state"] for part, result in suite.run(suite.due(named), minutes)}


def test_a_part_that_crashes_or_hangs_is_a_failed_row_and_the_next_one_runs(tmp_path: Path) -> None:
    suite = made_up(tmp_path, {"crash": CRASHES, "hang": HANGS, "good": PASSES}, limit_s=2)
    began = time.monotonic()
    assert states(suite) == {"crash": "failed", "hang": "failed", "good": "passed"}
    assert time.monotonic() - began < 30
    results = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("crash", "hang", "good")}
    assert "exit code -6" in results["crash"]["reason"]
    assert "did not end within 2 s" in results["hang"]["reason"]
    assert [row["what"] for row in results["hang"]["rows"]] == ["before"], "what it had found stays"
    table = markdown(suite.parts, results)
    assert "| hang | before | 1 | | |" in table.replace("  ", " ") and "| hang | about hang | did not end" in table


def test_nothing_that_a_hanging_part_has_started_is_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started([sys.executable, "-c", HANGS, str(tmp_path / "result")], log, {"HANGING_PART": str(tmp_path)}):
        wait_for(lambda: log.read_text().count("deaf") == 2, 60)
    assert log.read_text().count("deaf") == 2, "both were running"
    assert not with_variable("HANGING_PART", str(tmp_path))


def with_variable(name: str, value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_suite_that_is_ended_ends_its_part(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.performance.gpu_suite", "--size", "tiny", "--json", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ENDED_SUITE": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--parts", "versions"], stdout=log, stderr=log, env=environment)
    try:
        wait_for(lambda: len(with_variable("ENDED_SUITE", str(tmp_path))) > 1, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 128 + signal.SIGTERM
        assert not with_variable("ENDED_SUITE", str(tmp_path))
    finally:
        process.kill()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_results_are_kept_and_those_that_did_not_pass_come_last(tmp_path: Path) -> None:
    scripts = {"a": CRASHES, "b": PASSES, "c": PASSES, "d": PASSES}
    assert states(made_up(tmp_path, scripts, size="full"), "a", "b") == {"a": "failed", "b": "passed"}
    again = made_up(tmp_path, scripts | {"a": PASSES}, size="full")
    assert list(states(again).items()) == [("c", "passed"), ("d", "passed"), ("a", "passed")]
    assert states(again) == {}, "nothing is left"
    assert states(again, "b") == {"b": "passed"}, "a named part runs in any case"
    assert len(made_up(tmp_path, scripts, size="tiny").due([])) == 4, "a dry run's results are no results on a GPU"


def test_a_part_that_no_longer_fits_into_the_time_is_left_for_another_call(tmp_path: Path) -> None:
    scripts = {"long": PASSES, "short": PASSES}
    suite = made_up(tmp_path, scripts)
    suite = Suite([Part("long", "", 100, 200), Part("short", "", 0, 200)], suite.command, tmp_path, {}, {})
    assert states(suite, minutes=1) == {"long": None, "short": "passed"}
    assert states(suite, minutes=2) == {"long": "passed"}


def test_parts_that_may_run_beside_each_other_do_and_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """Two that wait for each other pass only at once; the third hangs, and the last one runs alone."""
    meets = (
        "import os, sys, time\nopen(sys.argv[1] + '.here', 'w')\nwhile not os.path.exists(OTHER): time.sleep(0.05)\n"
    )
    pair = {
        name: meets.replace("OTHER", repr(str(tmp_path / f"{of}.json.here"))) for name, of in (("a", "b"), ("b", "a"))
    }
    scripts = {name: script + PASSES for name, script in pair.items()} | {"hang": HANGS, "alone": PASSES}
    parts = [Part(name, "", 0, 5, beside=name != "alone") for name in ("a", "hang", "alone", "b")]
    suite = Suite(parts, made_up(tmp_path, scripts).command, tmp_path, {}, {}, together=True)
    assert list(states(suite).items())[-2:] == [("hang", "failed"), ("alone", "passed")]
    assert states(suite) == {"hang": "failed"}, "the others have passed"


def test_a_part_is_ended_with_the_time_of_the_call(tmp_path: Path) -> None:
    suite = made_up(tmp_path, {"hang": HANGS}, limit_s=300)
    began = time.monotonic()
    assert states(suite, minutes=0.2) == {"hang": "failed"}
    assert time.monotonic() - began < 20


def test_unknown_parts_are_named_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite_command.main(["--size", "tiny", "--json", str(tmp_path), "--parts", "heads", "ipc"]) == 2
    said = capsys.readouterr().err
    assert "No part is named heads; there are: versions, attention, head," in said and "rollout" in said


def test_all_parts_fit_into_half_an_hour_and_each_into_a_call_of_ten_minutes() -> None:
    at_once = max(part.expected_s for part in PARTS if part.beside)
    assert at_once + sum(part.expected_s for part in PARTS if not part.beside) < 30 * 60 - 60
    assert all(part.expected_s < part.limit_s < 570 for part in PARTS)
    assert all(callable(function_of(part.name)) for part in PARTS)
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"| {part.name} | {part.expected_s} | {part.limit_s} | {part.shows} |" in page for part in PARTS)


def test_a_part_says_how_it_ended_and_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "result.json"

    def state(*rows: Row | Exception) -> tuple[str, str, int]:
        def function(size: Any) -> Any:
            for row in rows:
                if isinstance(row, Exception):
                    raise row
                yield row

        assert run(function, "tiny", file) == json.loads(file.read_text())["state"]
        content = json.loads(file.read_text())
        return content["state"], content["reason"], len(content["rows"])

    good, bad = at_most("error", 0.1, 0.2), at_most("gradient", float("nan"), 0.2)
    assert state(good, noted("speed", 12.0, "tokens/s")) == ("passed", "", 2)
    assert state(good, bad, good) == ("failed", "gradient", 3)
    assert state(good, ValueError("no such\nthing")) == ("failed", "ValueError: no such", 1)
    assert state(good, Skip("needs a GPU")) == ("skipped", "needs a GPU", 1)
    assert state(aim("MFU", 29, 40, "%", least=True)) == ("passed", "", 1), "slow is not wrong"


@pytest.mark.parametrize(
    ("row", "target", "verdict"),
    [
        (at_most("x", 0.2, 0.2), "<= 0.2", "ok"),
        (at_most("x", 0.3, 0.2), "<= 0.2", "failed"),
        (true("x", False), "yes", "failed"),
        (aim("x", 1.9, 1.8, least=True), ">= 1.8", "ok"),
        (aim("x", 1.9, 1.1, least=False), "<= 1.1", "missed"),
        (
            row_of({"name": "x", "unit": "s", "values": [1, 3, 2], "median": 2, "target": ""}, "<= 1"),
            "<= 1 s",
            "missed",
        ),
        (row_of({"name": "x", "unit": "s", "values": [1, 3, 2], "median": 2, "target": ""}, ""), "", ""),
    ],
)
def test_verdicts(row: Row, target: str, verdict: str) -> None:
    assert (row.target, row.verdict) == (target, verdict)


def dry_run(folder: Path, *parts: str) -> dict[str, dict[str, Any]]:
    """The command itself, in the size that it chooses here."""
    command = [sys.executable, "-m", "launch.performance.gpu_suite", "--json", str(folder), "--parts", *parts]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in folder.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert "tiny size" in done.stdout and "| part | figure | found | target | |" in (folder / "table.md").read_text()
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in parts}


class Loaded(BaseException):
    """A benchmark has read its command line and its recipe; the next thing would be an engine."""


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (workload, runs):
        monkeypatch.setattr(module, "model_path", lambda name: Path("/models") / name)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("step_a", {"workload": "random-1.5b", "steps": 3, "no_alone": True}),
        ("step_b", {"workload": "smollm2", "steps": 3, "no_alone": True}),
        ("push_ipc", {"workload": "random-1.5b", "rounds": 3, "nccl": False}),
        ("push_nccl", {"workload": "random-1.5b", "rounds": 3, "nccl": True}),
        ("rollout", {"workload": "random-1.5b", "rounds": 2}),
    ],
)
@pytest.mark.parametrize("with_trl", [False, True])
def test_what_the_parts_ask_of_the_benchmarks_on_a_gpu_is_understood(
    part: str,
    expected: dict[str, Any],
    with_trl: bool,
    without_models: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They never run with these arguments on a CPU."""
    asked = []

    def loaded(options: Any, *changes: str) -> None:
        workload.load(options, *changes)
        asked.append(options)
        raise Loaded

    def run_here(command: list[str], check: bool) -> None:
        benchmarks = {
            "launch.performance.step": step,
            "launch.performance.push": push,
            "launch.performance.rollout": rollout,
        }
        assert command[1] == "-m" and not check
        benchmarks[command[2]].main(command[3:])

    for module in (step, push, rollout):
        monkeypatch.setattr(module, "load", loaded)
    monkeypatch.setattr(step, "check_trl", lambda: None)
    monkeypatch.setattr(comparisons, "find_spec", lambda name: with_trl or None)
    monkeypatch.setattr(comparisons.subprocess, "run", run_here)
    monkeypatch.setattr("openrs_ray.models.smollm2.package_version", lambda: "0.1.2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))
    with pytest.raises(Loaded):
        list(function_of(part)("full"))
    (options,) = asked
    assert {name: getattr(options, name) for name in expected} == expected
    if part.startswith("step"):
        assert options.no_trl is not with_trl and options.trl_setting == (["no checkpointing"] if with_trl else None)


def test_the_runs_on_a_gpu_are_valid(without_models: None) -> None:
    """And they are the recipe's, but for what has to be had from elsewhere."""
    awake, asleep = runs.one_gpu_config("full"), runs.one_gpu_config("full", *runs.ASLEEP)
    recipe = load_config(runs.RECIPES / "one-gpu.yaml", [])
    assert awake.model.path == "/models/random-0.5b" and awake.data.path == "toy"
    for section in ("rollout", "learner", "placement", "loss"):
        assert getattr(awake, section) == getattr(recipe, section)
    assert asleep.rollout.sleep_while_learning and asleep.placement.device == "gpu"
    assert not runs.one_gpu_config("full", "fidelity=as_published").loss.tempered
    quickstart = load_config(runs.RECIPES / "quickstart.yaml", [f"--{change}" for change in runs.QUICKSTART["full"]])
    assert quickstart.placement.device == "gpu" and quickstart.run.steps == 20
    script = (ROOT / "launch" / "quickstart.sh").read_text(encoding="utf-8")
    placed = [change for change in runs.QUICKSTART["full"] if change != "run.steps=20"]
    assert all(f"--{change.replace('=', ' ')}" in script for change in placed)


def test_the_memory_variants_fit_where_they_are_measured(without_models: None) -> None:
    """By the plan, with room: what does not fit cannot be compared with it."""
    shape = ModelShape.of(Qwen2Config(**asdict(SHAPES["random-1.5b"])))
    variants = memory.VARIANTS["full"]
    assert {variant.recompute for variant in variants if variant.cap_gib == 44} == {True, False}
    for variant in variants:
        _, config = memory.asked("full", variant)
        assert config.learner.gradient_checkpointing is variant.recompute
        (rank, *_) = learner_peaks(config, shape, variant.recompute)
        assert rank < 0.95 * (variant.cap_gib or 78) * GIB


def learner_peaks(config: RunConfig, shape: ModelShape, recompute: bool) -> list[float]:
    """Of a learner alone on its GPU, the highest first."""
    return sorted((sum(parts.values()) for parts in learner_phases(config, shape, recompute).values()), reverse=True)


QUICK = ("attention", "head")
ENGINES = (
    "quickstart", "one_gpu", "one_gpu_asleep", "as_published", "step_a", "step_b", "push_ipc", "push_nccl", "rollout",
)  # fmt: skip


def test_dry_run_of_the_quickest_parts(tmp_path: Path) -> None:
    results = dry_run(tmp_path, *QUICK)
    assert {name: result["state"] for name, result in results.items()} == dict.fromkeys(QUICK, "passed")


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(1000)
def test_dry_run_of_the_other_parts_without_engines(tmp_path: Path) -> None:
    others = [part.name for part in PARTS if part.name not in QUICK + ENGINES]
    results = dry_run(tmp_path, *others)
    assert {name: result["state"] for name, result in results.items()} == dict.fromkeys(others, "passed")


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(1000)
def test_dry_run_of_the_parts_with_engines(tmp_path: Path) -> None:
    results = dry_run(tmp_path, *ENGINES)
    skipped = {name: result["reason"] for name, result in results.items() if result["state"] != "passed"}
    assert set(skipped) == {"one_gpu_asleep", "step_b", "push_nccl"}
    assert "needs a GPU" in skipped["push_nccl"] and "needs a GPU" in skipped["one_gpu_asleep"]
