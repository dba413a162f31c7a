"""`ray job submit` for real: a head node of our own on free ports, token authentication on, ended by its own handle."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import ROOT, result, steps_done, write_recipe
from ray_head import BIN, free_port, ray_head

from openrs_ray.run.attempts import read_attempts


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment in which `ray job` reaches a fresh head node."""
    dashboard = free_port()
    variables = {
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "PATH": f"{BIN}:{os.environ['PATH']}",  # the job's `python` is the one the head finds
    }
    options = "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)
    with ray_head(*options, **variables) as started:
        environment = started.environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        deadline = time.monotonic() + 120
        while ray_job(environment, "list").returncode:
            assert started.process.poll() is None and time.monotonic() < deadline, started.log.read_text()
            time.sleep(1)
        yield environment


def ray_job(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ray"), "job", *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400
    )


def kill_driver() -> None:
    """SIGKILL to the run that the job's process watches and must start again."""
    (driver,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if "recipe.yaml" in (words := process.info["cmdline"] or [])
        and "launch.train" in words
        and "--restart" not in words
    )
    driver.kill()


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(1200)
def test_a_second_submission_resumes_the_first(head: dict[str, str], tmp_path: Path, toy_folder: Path) -> None:
    copy = tmp_path / "project"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in tracked:
        if (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
    # .rayignore must keep them out of the upload (Ray leaves out a folder called exactly .venv by itself).
    for ignored in (".venv-gpu", "runs"):
        (copy / ignored).mkdir()
        (copy / ignored / "huge").write_bytes(b"x" * (1 << 20))
    write_recipe(copy / "recipe.yaml", toy_folder, tmp_path / "runs", "job", 200, checkpoint={"every_steps": 1000})
    run = tmp_path / "runs" / "job"
    command = ["--", "python", "-m", "launch.train", "recipe.yaml", "--resume", "--restart"]

    unauthorised = ray_job(head | {"RAY_AUTH_MODE": "disabled"}, "list")
    assert unauthorised.returncode != 0, "token authentication must be on"

    submit = ["submit", "--working-dir", str(copy), "--submission-id"]
    deadline = time.monotonic() + 300
    while (first := ray_job(head, *submit, "first", "--no-wait", *command)).returncode:
        # The head answers before its agent, which starts jobs, is there.
        assert "No available agent" in first.stderr and time.monotonic() < deadline, first.stderr[-2000:]
        time.sleep(1)
    while steps_done(run) < 3:
        assert time.monotonic() < deadline, ray_job(head, "logs", "first").stdout[-3000:]
        time.sleep(0.2)
    kill_driver()
    deadline = time.monotonic() + 300
    while len(read_attempts(run)) < 2 or steps_done(run) < 3:
        assert time.monotonic() < deadline, ray_job(head, "logs", "first").stdout[-3000:]
        time.sleep(0.2)
    assert ray_job(head, "stop", "first").returncode == 0
    logs = ray_job(head, "logs", "first").stdout
    assert "stopped after step" in logs and str(run) in logs, logs[-3000:]
    again = "Continue with: ray job submit --working-dir . -- python -m launch.train recipe.yaml --resume --restart\n"
    assert again in logs, logs[-3000:]

    reached = steps_done(run)
    done = ray_job(head, *submit, "second", *command, "--run.steps", str(reached + 2))
    assert done.returncode == 0, done.stdout[-3000:]
    assert result(run)["step"] == reached + 2
    assert read_attempts(run)[3] > 0, "the second submission must continue, not start over"
    uploaded = {path.name for path in Path(head["RAY_AUTH_TOKEN_PATH"]).parent.rglob("*")}
    assert "recipe.yaml" in uploaded and "huge" not in uploaded, "environments and runs must stay out of the upload"
