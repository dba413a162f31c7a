"""A run that is started again when it dies: how often, with what, and when no more. The run is a script of few lines."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from places import ROOT

from launch.driver.supervise import TRIES, supervise

SCRIPT = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / "log").open("a") as log:
    log.write(" ".join(sys.argv[2:]) + "\\n")
number = len((folder / "log").read_text().splitlines()) - 1
what, saved = (folder / "plan").read_text().split()[2 * number:][:2]
(folder / "saved").write_text(saved)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "wait":
    told = []
    def stop(number, _):
        told.append(number)
        (folder / "told").write_text(" ".join(signal.Signals(n).name for n in told))
        if len(told) == int(saved):
            sys.exit(1)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, stop)
    (folder / "waits").touch()
    time.sleep(60)
sys.exit(int(what))
"""


def run(folder: Path, plan: str, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, the arguments of every try, and what was said; `plan`: per try how it ends and the step it has saved."""
    (folder / "plan").write_text(plan)
    (folder / "log").write_text("")
    (folder / "saved").write_text("-1")
    said: list[str] = []
    command = [sys.executable, "-c", SCRIPT, str(folder), *arguments]
    code = supervise(command, lambda: int((folder / "saved").read_text()), said.append, pause_s=0.01)
    return code, (folder / "log").read_text().splitlines(), said


def test_a_run_that_is_killed_or_breaks_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    code, tries, said = run(tmp_path, "kill -1 1 5 0 9", "mine.yaml")
    assert code == 0 and tries == ["mine.yaml", "mine.yaml --resume", "mine.yaml --resume"]
    assert "exit code 137" in said[0] and "exit code 1 " in said[1] and "step 5" in said[1]


def test_what_a_user_must_mend_is_not_tried_again(tmp_path: Path) -> None:
    assert run(tmp_path, "2 -1 0 0", "mine.yaml", "--resume") == (2, ["mine.yaml --resume"], [])


def test_tries_that_save_nothing_new_come_to_an_end(tmp_path: Path) -> None:
    code, tries, said = run(tmp_path, "1 3 " + "kill 3 " * 20, "mine.yaml")
    assert code == 137 and len(tries) == 1 + TRIES
    assert said[-1] == f"{TRIES} tries in a row ended without a new checkpoint: the run is not started again"


def test_a_run_that_has_gone_back_to_an_earlier_checkpoint_has_saved_something_new(tmp_path: Path) -> None:
    """As after a rollback of the guard: step 9, then 2, 3, ... until it is done."""
    code, tries, _ = run(tmp_path, "1 9 1 2 1 3 1 4 1 5 1 6 1 7 0 8", "mine.yaml")
    assert code == 0 and len(tries) == 8


def test_what_would_break_again_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run itself says so, even if it has saved something new; a person sees exit code 1."""
    ends = "from launch.driver.supervise import code_of_recurring; import sys; sys.exit(code_of_recurring())"
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OPENRS_SUPERVISED", raising=False)
    saved, said = iter(range(9)), list[str]()
    assert supervise([sys.executable, "-c", ends], lambda: next(saved), said.append, pause_s=0.01) == 1
    assert said == [] and next(saved) == 1, "it was started once"
    assert subprocess.run([sys.executable, "-c", ends], check=False).returncode == 1


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (["SIGTERM"], "SIGUSR1"),
        (["SIGINT", "SIGTERM"], "SIGUSR1 SIGTERM"),
        (["SIGKILL"], "SIGTERM"),
        (["SIGHUP", "SIGHUP"], "SIGHUP"),  # from the kernel and from the shell: no force is meant
    ],
)
def test_a_signal_reaches_the_run_and_is_the_end(tmp_path: Path, sent: list[str], told: str) -> None:
    """Also when it is the supervising process that is killed: no run goes on that nobody watches."""
    (tmp_path / "plan").write_text(f"wait {len(told.split())} 0 1")
    (tmp_path / "log").write_text("")
    source = (
        "import sys; from launch.driver.supervise import supervise\n"
        "sys.exit(supervise([sys.executable, '-c', *sys.argv[1:]], lambda: 0, print, pause_s=0.01))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source, SCRIPT, str(tmp_path), "mine.yaml"],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "waits").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = psutil.Process(process.pid).children()
    for name in sent:
        process.send_signal(signal.Signals[name])
        time.sleep(0.5)
    expected = -signal.SIGKILL if sent == ["SIGKILL"] else 128 + signal.Signals[sent[0]]
    assert process.wait(30) == expected
    child.wait(30)
    assert (tmp_path / "told").read_text() == told
    assert len((tmp_path / "log").read_text().splitlines()) == 1
