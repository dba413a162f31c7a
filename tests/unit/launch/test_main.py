"""`openrs`: every command by its name, and a wrong name is one sentence."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest
from commands import COMMAND_PARTS
from places import ROOT

from launch.main import COMMANDS, main


def test_every_command_of_the_project_is_listed_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    launch = ROOT / "launch"
    scripts = [path for path in launch.rglob("*.py") if "sys.exit(main(sys.argv[1:]))" in path.read_text()]
    names = {".".join(path.relative_to(launch).with_suffix("").parts).removesuffix(".__main__") for path in scripts}
    assert names - COMMAND_PARTS == {*COMMANDS}
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert main([]) == 0 and capsys.readouterr().out == listed
    lines = dict(line.split(maxsplit=1) for line in listed.splitlines() if line.startswith("  "))
    assert lines == COMMANDS
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in lines.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gets_the_rest_of_the_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([name, "--help"])
    except SystemExit as end:  # argparse
        code = int(end.code or 0)
    assert code == 0 and f"launch.{name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("trian", "'trian' is not a command; the nearest one is train (openrs --help lists all)"),
        ("coverag", "'coverag' is not a command; the nearest one is coverage (openrs --help lists all)"),
        ("xyzzy", "'xyzzy' is not a command; openrs --help lists them"),
        ("open-rs3", "'open-rs3' is not a command; openrs --help lists them"),
        ("--verbose", "'--verbose' is not a command; openrs --help lists them"),
    ],
)
def test_a_name_that_is_no_command_is_one_sentence(
    name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "quickstart"]) == 2
    assert capsys.readouterr().err.lower().strip().rstrip(".") == f"error: {sentence}"


def test_the_installed_script_is_this_function() -> None:
    (name, place), *others = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert name == "openrs" and not others
    assert EntryPoint(name, place, "console_scripts").load() is main


def test_a_process_ends_with_the_command_s_exit_code() -> None:
    line = [sys.executable, "-m", "launch.main", "train", "no-such-recipe"]
    done = subprocess.run(line, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "no-such-recipe" in done.stderr and "Traceback" not in done.stderr
