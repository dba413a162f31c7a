"""JSON output: stdout holds one document and nothing else, whoever prints."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from openrs_ray.common.console import json_output, plain, say
from openrs_ray.stats import Interval

_PROGRAM = """
import os, subprocess, sys
from rich.console import Console
from openrs_ray.common.console import json_output

console = Console()
with json_output(True) as document:
    print("a line of Python")
    console.print("a line of rich")
    os.write(1, b"a line of C\\n")
    subprocess.run(["echo", "a line of a child"], check=True)
    document({"share": float("nan"), "text": "\\udcff\\u00e4"})
    os._exit(3) if len(sys.argv) > 1 else None
print("\\nafterwards")
"""


@pytest.mark.parametrize("killed", [False, True])
def test_whatever_other_processes_print_stdout_is_one_document(killed: bool) -> None:
    command = [sys.executable, "-c", _PROGRAM, *["at once"] * killed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    document, _, after = done.stdout.partition("\n\n")
    assert json.loads(document) == {"share": None, "text": "\udcffä"}
    assert (done.returncode, after) == ((3, "") if killed else (0, "afterwards\n"))
    for who in ("Python", "rich", "C", "a child"):
        assert f"a line of {who}\n" in done.stderr


def test_an_error_leaves_stdout_empty_and_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), json_output(True):
        say(Console(), "progress")
        raise ValueError("broken")
    assert capfd.readouterr() == ("", "progress\n")
    sys.stdout.write("as it was\n")
    assert capfd.readouterr().out == "as it was\n"


def test_without_being_asked_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    with json_output(False) as document:
        say(Console(), "a table")
        document({"a": 1})
    assert capsys.readouterr().out == "a table\n"


@dataclass(frozen=True)
class _Record:
    where: Path
    score: Interval
    by_step: dict[int, tuple[float, ...]]


def test_records_arrays_and_paths_become_plain_values() -> None:
    record = _Record(Path("/runs/a"), Interval(0.5, 0.4, float("inf")), {3: (1.0, float("nan"))})
    assert plain([record, np.float32(0.5), np.arange(3), None, True]) == [
        {"where": "/runs/a", "score": {"mean": 0.5, "low": 0.4, "high": None}, "by_step": {"3": [1.0, None]}},
        *(0.5, [0, 1, 2], None, True),
    ]
