"""Commands run from Python: their words are passed on, their ends become exceptions, interrupts are handed on once."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from launch.api.commands import run_command
from openrs_ray.errors import RunError, UserError


def test_what_a_command_says_is_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"pred": "\\\\boxed{4}", "gold": "4"}\n')
    run_command("verify", [str(file), "--processes", "1"])
    said = capsys.readouterr().out
    assert '"status": "correct"' in said and "1 checked: 1 correct" in said


def test_in_a_notebook_a_command_prints_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel asks for colours by its environment; rich then redraws a live screen as on a terminal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'launch.verify' in sys.orig_argv:\n"
        "    from rich.console import Console\n"
        "    print('a terminal' if Console().is_terminal else 'plain lines', flush=True)\n"
        "    os._exit(0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    run_command("verify", ["x.jsonl"])
    assert capsys.readouterr().out == "plain lines\n"


def test_a_users_mistake_is_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^Cannot read .*none.jsonl.*\.$"):
        run_command("verify", [str(tmp_path / "none.jsonl")])


def test_a_command_that_dies_without_a_word_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif 'launch.verify' in sys.orig_argv: os._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match=r"launch\.verify ended with exit code 7"):
        run_command("verify", ["x.jsonl"])


def test_an_interrupt_is_handed_on_and_raised_when_the_command_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Ctrl-C in a terminal and the interrupt of a notebook do it: SIGINT to this process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys, time\n"
        "if 'launch.verify' in sys.orig_argv:\n"
        "    def save(*_):\n"
        "        time.sleep(0.5); print('saved', flush=True); os._exit(130)\n"
        "    signal.signal(signal.SIGINT, save)\n"
        "    print('begun', flush=True)\n"
        f"    open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in a suite that a shell runs behind itself

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_command("verify", ["x.jsonl"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out == "begun\nsaved\n"
    assert not [child for child in psutil.Process().children() if "launch.verify" in child.cmdline()]
