"""`ray job submit` for real: a head node of our own on free ports, token authentication on, ended by its own handle."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import ROOT, assert_all_gone, result, steps_done, write_recipe
from ray_head import BIN, free_port

from openrs_ray.run.attempts import read_attempts


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """The environment in which `ray job` reaches a fresh head node."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets lie in it
    port, dashboard = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PATH": f"{BIN}:{os.environ['PATH']}",  # the job's `python` is the one the head finds
    }
    (folder / "token").write_text("0123456789abcdef" * 4)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--port", str(port), "--num-cpus", "4"),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", str(folder / "ray")),
        # Of its own, too: where another Ray has the default one, this head would have no agent, and no agent starts jobs.
        *("--object-store-memory", str(128 << 20), "--dashboard-agent-listen-port", str(free_port())),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        deadline = time.monotonic() + 120
        while ray_job(environment | address, "list").returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(1)
        yield environment | address
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert_all_gone(family)
        shutil.rmtree(folder, ignore_errors=True)


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
