"""The README's first command in a fresh clone, as a new user would run it: it installs, it learns, it fits."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from commands import ROOT, assert_all_gone, finish, start, tail
from commands import result as result_of

from openrs_ray.models.toy.teach import ToySettings, build_toy

MEMORY_LIMIT = 6e9
"""Bytes that all processes together may use."""
TIME_LIMIT = 600
"""Seconds on two cores, the installation included."""


def used_memory(process: psutil.Process) -> float:
    """Bytes of the process and all its descendants; pages shared by several count once."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_quickstart_in_a_fresh_clone_learns(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    outside = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment = outside | {"OPENRS_CACHE": str(tmp_path / "cache"), "OPENRS_RUNS": str(tmp_path / "runs")}
    log = tmp_path / "log"
    began, peak, family = time.monotonic(), 0.0, []
    with log.open("wb") as output:
        command = subprocess.Popen(
            ["bash", "launch/quickstart.sh"], cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    while command.poll() is None:
        assert time.monotonic() - began < 1400, tail(log)
        time.sleep(1)
        try:
            process = psutil.Process(command.pid)
            family = process.children(recursive=True) or family
            peak = max(peak, used_memory(process))
        except psutil.NoSuchProcess:
            break
    seconds = time.monotonic() - began
    assert command.wait() == 0, tail(log)
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["after"]["low"] > result["before"]["high"]
    assert result["after"]["mean"] >= 0.95
    assert 0.3 <= result["before"]["mean"] <= 0.6
    assert peak < MEMORY_LIMIT
    assert seconds < TIME_LIMIT
    again = time.monotonic()
    subprocess.run(["bash", "launch/setup.sh"], cwd=clone, env=environment, check=True)
    assert time.monotonic() - again < 20, "the second run must not install again"
    version = subprocess.run([clone / ".venv/bin/openrs", "--version"], capture_output=True, text=True, check=True)
    assert f'version = "{version.stdout.strip()}"' in (ROOT / "pyproject.toml").read_text()
    text = tail(log)
    assert "accuracy before" in text and "accuracy after" in text and str(run)[-20:] in text.replace("\n", "")
    assert_all_gone(family)


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("toy", "seed"), [(1, 43), (4, 42)])
def test_any_toy_learns_with_any_seed(tmp_path: Path, toy: int, seed: int) -> None:
    """Another seed of the toy moves its weights far more than the rounding of another machine does."""
    build_toy(tmp_path / "toy", replace(ToySettings(), seed=toy))
    fields = {"model.path": tmp_path / "toy", "run.folder": tmp_path, "run.seed": seed}
    arguments = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    log = tmp_path / "log"
    assert finish(start(["launch/recipes/quickstart.yaml", *arguments], log), log, seconds=1000) == 0, tail(log)
    result = result_of(tmp_path / "quickstart")
    assert 0.35 <= result["before"]["mean"] <= 0.65
    assert result["after"]["mean"] >= 0.95
