"""The end of a run under a deadline, and what a closed terminal does."""

import codecs
import fcntl
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest
from commands import (
    ROOT,
    assert_all_gone,
    descendants,
    finish,
    result,
    start,
    steps_done,
    tail,
    wait_until,
    write_recipe,
)
from screen import Screen

from openrs_ray.run.checkpoints import CheckpointStore

HANGS = """
import subprocess, sys, time
from launch.driver.shutdown import Shutdown
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with Shutdown(lambda: print("written", flush=True), deadline_s=0.5) as shutdown:
    shutdown.waits_for("closing the actors", 7)
    shutdown.waits_for("Ray")
    print(child.pid, flush=True)
    time.sleep(float(sys.argv[1]))
child.kill()
time.sleep(1.0)
sys.exit(3)
"""


def hang(seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HANGS, str(seconds)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_what_hangs_at_the_end_is_named_and_ended_with_the_runs_own_code() -> None:
    ended = hang(50)
    assert ended.returncode == 7, ended.stderr
    assert "Ray did not end within" in ended.stderr and "Traceback" not in ended.stderr
    child, written = ended.stdout.split()
    assert written == "written" and not psutil.pid_exists(int(child))


def test_an_end_in_time_is_left_alone() -> None:
    ended = hang(0)
    assert ended.returncode == 3 and ended.stderr == ""


def in_terminal(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A command in a terminal of its own, and the end of it that a person would hold."""
    ours, theirs = pty.openpty()

    def take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

    process = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=take,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


COMMAND = """
import sys, time
from launch.cli.command import command
@command
def main(arguments):
    try:
        print("begun", flush=True)
        for _ in range(500):  # a signal that comes just before a long sleep is seen at its end
            time.sleep(0.1)
    finally:
        print("ending", flush=True)  # an error where the terminal is gone
        open(arguments[0], "w").close()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_every_command_ends_in_order_when_it_is_told_to_stop(tmp_path: Path, sent: signal.Signals) -> None:
    process, terminal = in_terminal([sys.executable, "-c", COMMAND, str(tmp_path / "ended")])
    os.read(terminal, 100)
    if sent == signal.SIGHUP:
        os.close(terminal)
    else:
        process.send_signal(sent)
    assert process.wait(20) == 128 + sent
    assert (tmp_path / "ended").exists()


def test_nohup_stays_what_it_is(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + COMMAND
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "ended")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_closed_terminal_saves_the_run_and_a_stopped_gcs_does_not_hold_up_its_end(
    tmp_path: Path, toy_folder: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 500, checkpoint={"every_steps": 1000})
    run, log = tmp_path / "run", tmp_path / "log"
    process, terminal = in_terminal([sys.executable, "-m", "launch.train", str(recipe), "--restart"])
    deadline, screen = time.monotonic() + 300, Screen(80)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while steps_done(run) < 2 or not shows_live_lines(screen):
        assert process.poll() is None and time.monotonic() < deadline, screen.lines
        screen.feed(decode(os.read(terminal, 10_000)))
    assert any(line.startswith("[run] step 1/500  reward ") for line in screen.lines)
    family = descendants(process)
    os.close(terminal)
    assert process.wait(200) == 128 + signal.SIGHUP
    assert_all_gone(family)
    (saved,) = CheckpointStore(run / "checkpoints").checkpoints()
    assert saved.step == steps_done(run), "it was saved, and no second signal took it for force"

    last = saved.step + 1
    process = start([str(recipe), "--resume", "--run.steps", str(last)], log)
    wait_until(lambda: steps_done(run) == last, 300, process, log)
    family = descendants(process)
    folders = {Path(*path.parts[:3]) for member in family for path in opened_by(member) if path.is_socket()}
    assert folders and {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}, (
        "others can reach Ray's sockets"
    )
    (gcs,) = [member for member in family if member.name() == "gcs_server"]
    gcs.suspend()
    assert finish(process, log, 120) == 0, tail(log)
    assert result(run)["step"] == last
    said = tail(log)
    assert said.index("run folder") < said.index("did not end within 45 s"), "the table comes first"
    assert "Traceback" not in said
    assert_all_gone(family, 10)


def shows_live_lines(screen: Screen) -> bool:
    last = (screen.lines or [""])[-1]
    return re.match(r"step \d+/500  .* left  reward .* accuracy ", last) is not None


def opened_by(process: psutil.Process) -> list[Path]:
    """Sockets of Ray that a process has open."""
    found = (Path(connection.laddr) for connection in process.net_connections("unix") if connection.laddr)
    return [path for path in found if path.is_absolute() and "session_" in str(path)]


def test_an_error_that_nobody_was_told_of_is_said_at_the_deadline() -> None:
    script = HANGS.replace(
        'waits_for("closing the actors", 7)', 'waits_for("closing the actors", 2, "error: no disk\\n")'
    )
    command = [sys.executable, "-c", script, "50"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2 and ended.stderr.startswith("error: no disk\nthe run is over"), ended.stderr
