"""The command line that started this run."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_VARIABLE = "OPENRS_TYPED"
"""Hands the line on to a process that replaces this one."""
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in a submitted job."""


def handed_on() -> dict[str, str]:
    """The environment for a process that replaces this one."""
    return {_VARIABLE: json.dumps(sys.orig_argv)} | os.environ


def continue_with(field: str = "", value: str = "") -> str:
    """The line that goes on with the run, with a new value of `field`."""
    words: list[str] = json.loads(os.environ.get(_VARIABLE, "null")) or sys.orig_argv
    openrs = any(word == "launch.main" or Path(word).name == "openrs" for word in words) and "train" in words
    trains = openrs or any(word == "launch.train" or Path(word).name == "train.py" for word in words)
    resume = ["--resume"] if trains and "--resume" not in words else []
    resume += _run_folder(words) if trains else []
    submit = ["ray", "job", "submit", "--working-dir", ".", "--"] if _JOB in os.environ else []
    if not field:
        return shlex.join([*submit, *words, *resume])
    return shlex.join([*submit, *_without(f"--{field}", words), *resume, f"--{field}", value])


def _run_folder(words: Sequence[str]) -> list[str]:
    told = any(word.partition("=")[0] == "--run.folder" for word in words)
    folder = os.environ.get("OPENRS_RUNS")
    return [] if told or not folder else ["--run.folder", folder]


def _without(option: str, words: Sequence[str]) -> list[str]:
    return [
        word
        for before, word in zip(("", *words), words, strict=False)
        if option not in (before, word) and not word.startswith(f"{option}=")
    ]
