"""Runs the real command in a process of its own, watches it, kills it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from places import PYTHONPATH, ROOT, SUPPORT
from system import tiny_sections

from launch.train import main
from openrs_ray.run.metrics import read_metrics

COMMAND_PARTS = {"performance.gpu_suite.one", "performance.trl_run", "without_gpu.trial"}
"""Modules of launch/ that end as commands do, but are started by programs only."""


def write_recipe(path: Path, model: Path, runs: Path, name: str, steps: int, **changes: dict[str, object]) -> Path:
    """The tiny run as a recipe file, with a checkpoint every second step; `changes` by section."""
    sections = tiny_sections(runs, model, name, steps) | {"checkpoint": {"every_steps": 2}}
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(sections))
    return path


def write_mistakes(folder: Path, model: Path) -> Path:
    """A recipe that is right, named `mistake`, for tests that spoil it by overrides; its runs lie in FOLDER/runs."""
    problems = folder / "problems.jsonl"
    problems.write_text(
        "".join(json.dumps({"problem": f"{n}+1", "answer": str(n + 1)}) + "\n" for n in range(100, 120))
    )
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
run: {{name: mistake, folder: {folder}/runs, steps: 2}}
model: {{path: {model}, dtype: float32}}
data: {{path: {problems}}}
rollout: {{problems_per_step: 4, completions_per_problem: 4, max_prompt_tokens: 16, max_completion_tokens: 24}}
learner: {{zero_stage: 1}}
placement: {{device: cpu, num_learner_gpus: 1, cpus_per_slot: 0.25}}
"""
    )
    return path


def start(
    arguments: list[str], log: Path, script: str | None = None, document: Path | None = None
) -> subprocess.Popen[bytes]:
    """`python -m launch.train ARGUMENTS` (or a script of the tests in its place), its output in a file.

    `document`: a file of its own for stdout.
    """
    command = [sys.executable, *(["-m", "launch.train"] if script is None else [str(SUPPORT / script)])]
    with log.open("ab") as output, (document or log).open("ab") as stdout:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=stdout,
            stderr=output,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            start_new_session=True,
        )


def steps_done(run: Path) -> int:
    return max((int(line["step"]) for line in read_metrics(run)), default=0)


def wait_until(condition: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a condition while the process lives; fails with the end of its log."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}: {tail(log)}"
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {tail(log)}"
        time.sleep(0.05)


def finish(process: subprocess.Popen[bytes], log: Path, seconds: float = 400) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"did not end within {seconds} s: {tail(log)}") from None


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def named(process: subprocess.Popen[bytes], text: str) -> psutil.Process:
    """The first of the run's processes with this text in its command line."""
    for member in descendants(process):
        with suppress(psutil.Error):  # one that is ending has no command line any more
            if text in " ".join(member.cmdline()):
                return member
    raise AssertionError(f"no process {text} belongs to the run")


def power_cut(process: subprocess.Popen[bytes]) -> None:
    """Kill the run and everything that belongs to it at once. (Left alone, Ray's agents need a minute to see that it is gone.)"""
    family = descendants(process)
    process.kill()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=30)


def assert_all_gone(processes: list[psutil.Process], seconds: float = 90) -> None:
    """No process may outlive its run (what is left is ended, so that the next test starts clean)."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    names = [p.name() for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    for left in alive:
        left.kill()
    assert not names, f"still running: {names}"


def result(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "result.json").read_text())
    return content


def said(capsys: pytest.CaptureFixture[str], recipe: Path, *overrides: str) -> str:
    """The one sentence of a command that must end with exit code 2 and must not have started a Ray."""
    import ray

    before = ray.is_initialized()  # the session's, when another test has asked for it
    assert main([str(recipe), *overrides]) == 2
    assert ray.is_initialized() == before
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    return error
