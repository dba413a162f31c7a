"""The boundary of every command: an exit code and one sentence, whatever happens inside."""

import errno
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import launch
from launch.cli import failures
from launch.cli.command import command
from openrs_ray.errors import RunError, UserError


def end(error: BaseException) -> int:
    @command
    def main(arguments: list[str]) -> None:
        raise error

    return main([])


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(failures.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setattr(failures, "_run_folder", [])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("mend it"), 2), (RunError("it broke"), 1), (KeyboardInterrupt(), 130), (ZeroDivisionError("1/0"), 1)],
)
def test_every_end_has_its_code_and_one_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(error) == code
    assert "Traceback" not in said(capsys)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RecursionError("deep"),
        MemoryError(),
        OSError(errno.EIO, "Input/output error", "/a"),
        ValueError("a\nb"),
    ],
)
def test_what_nobody_foresaw_leaves_its_traceback_in_a_file(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(error) == 1
    line = said(capsys)
    (written,) = (tmp_path / "runs" / "errors").iterdir()
    assert line.startswith("error: ") and line.endswith(f"the traceback is in {written}.")
    assert "test_command.py, line" in line
    trace = written.read_text()
    assert "Traceback (most recent call last)" in trace and "raise error" in trace and type(error).__name__ in trace


def test_the_traceback_goes_into_the_run_folder_once_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures.belongs_to(tmp_path / "run")
    end(KeyError("x"))
    assert not (tmp_path / "run").exists() and str(tmp_path / "runs" / "errors") in said(capsys)
    (tmp_path / "run").mkdir()
    end(KeyError("x"))
    assert str(tmp_path / "run" / "error-") in said(capsys)


def test_a_full_disk_and_a_read_only_one_do_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").touch()  # no folder can be made below a file
    end(KeyError("x"))
    assert str(tmp_path / "temporary" / "openrs_errors") in said(capsys)

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert end(KeyError("the cause")) == 1
    line = said(capsys)
    assert "KeyError: 'the cause'" in line and "no folder had room for its traceback" in line


def test_no_character_of_a_message_moves_the_cursor_or_fails_to_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(UserError("a\x1b[2Jb\ud800c\u2028d é")) == 2
    assert said(capsys) == r"error: a\x1b[2Jb\ud800c\u2028d é."


def test_every_command_ends_through_this_boundary() -> None:
    """All modules that are run but two: `launch.main` hands on to them, `launch.installed` tries what may not even import."""
    found = 0
    for module in pkgutil.walk_packages(launch.__path__, "launch."):
        source = Path(str(importlib.util.find_spec(module.name).origin)).read_text()
        if "__main__" not in source or not re.search(r"^def main\(", source, re.MULTILINE):
            continue
        if module.name not in ("launch.installed", "launch.main"):
            assert re.search(r"^@command\ndef main\(arguments", source, re.MULTILINE), module.name
            found += 1
    assert found >= 17
