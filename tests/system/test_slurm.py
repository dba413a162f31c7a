"""launch/clusters/slurm.sh with stand-ins for Slurm, Ray and the run: who is started where, and what a stop leads to."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from places import ROOT

SCRIPT = ROOT / "launch" / "clusters" / "slurm.sh"

NOTE = 'echo "$(basename "$0") $*" >>"$NOTES"\n'
STAND_INS = {
    "srun": NOTE + 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": NOTE + '[[ $1 != show ]] || printf "%s\\n" localhost other\n',
    # As the real one: the head listens, and both stay until they are ended.
    "ray": NOTE + '[[ $1 == start ]] || exit 0\n[[ $2 != --head ]] || exec "$PYTHON" "$LISTENER" "$@"\nexec sleep 60\n',
    "python": NOTE
    + 'echo "address $RAY_ADDRESS" >>"$NOTES"\nuntil grep -q "^ray start --address" "$NOTES"; do sleep 0.1; done\n'
    '[[ -n ${STAYS:-} ]] || exit "$CODE"\n'
    'trap "sleep 0.3; exit 143" TERM\necho begun >>"$NOTES"\nsleep 60 &\nwait\n',
}
LISTENER = """
import socket, sys, time
port = next(int(word.split("=")[1]) for word in sys.argv if word.startswith("--port="))
time.sleep(0.3)
listening = socket.create_server(("127.0.0.1", port))
time.sleep(60)
"""


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The script as Slurm starts it on the first of two nodes: what it starts is noted in folder/notes, ends with the block."""
    tools = folder / "tools"
    tools.mkdir()
    for name, body in STAND_INS.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (tools / name).chmod(0o755)
    (folder / "listener.py").write_text(LISTENER)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    own = {
        "NOTES": str(folder / "notes"),
        "LISTENER": str(folder / "listener.py"),
        "PYTHON": shutil.which("python3") or "",
    }
    job = subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env={
            **os.environ,
            **job,
            **own,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(folder),
            **variables,
        },
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield job
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def notes(folder: Path) -> str:
    return (folder / "notes").read_text() if (folder / "notes").exists() else ""


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_run_joins_a_ray_of_all_nodes_and_its_exit_code_is_the_jobs(tmp_path: Path, code: int) -> None:
    with started(tmp_path, "mine.yaml", "--run.steps", "5", CODE=str(code)) as job:
        assert job.wait(timeout=30) == code
    said = notes(tmp_path)
    assert "ray get-auth-token --generate" in said
    (head,) = [line for line in said.splitlines() if line.startswith("ray start --head")]
    (other,) = [line for line in said.splitlines() if line.startswith("ray start --address=")]
    address = next(word for word in other.split() if word.startswith("--address=")).removeprefix("--address=")
    assert f"--port={address.split(':')[1]} " in head and "--nodes=1 --ntasks=1 --exclude=localhost bash -c" in said
    assert "python -m launch.train mine.yaml --placement.wait_s 300 --run.steps 5 --resume --restart" in said
    assert f"address {address}" in said
    assert "requeue" not in said


def test_a_stop_before_the_time_limit_saves_and_queues_the_job_again(tmp_path: Path) -> None:
    with started(tmp_path, "mine.yaml", STAYS="1") as job:
        for _ in range(200):
            if "begun" in notes(tmp_path):
                break
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)  # as --signal=B: does, to the script alone
        assert job.wait(timeout=30) == 143
    assert f"scontrol requeue {os.getpid()}" in notes(tmp_path)


def test_without_a_recipe_it_says_what_is_missing(tmp_path: Path) -> None:
    with started(tmp_path) as job:
        assert job.wait(timeout=30) == 2
        assert job.stderr is not None and b"the first argument must be a recipe" in job.stderr.read()


def test_bash_reads_all_of_it() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
