"""All commands read their command lines alike: --help works, and a mistake is one sentence with exit code 2."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMAND_PARTS
from places import ROOT

from launch.fields import COMMAND, fields_page
from openrs_ray.config.load import flat, load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.evaluation.config import EvaluationConfig
from openrs_ray.models.bundled import resolve_model

Main = Callable[[list[str]], int]

COMMANDS = {
    "train": "RECIPE",
    "reproduce": "RECIPE",
    "curate": "RECIPE",
    "probe": None,
    "evaluate": "MODEL_OR_RUN",
    "coverage": "RUN",
    "audit": "RUN",
    "verify": "FILE",
    "fields": "FILE",
    "shapes": None,
    "show": "RUN",
    "chat": "RUN_OR_FOLDER",
    "export": "RUN",
    "trace": "RUN",
    "report": "RUN",
    "performance.rewards": "FILE",
    "performance.rollout": None,
    "performance.learner": None,
    "performance.completions": None,
    "performance.learning": None,
    "performance.guard": None,
    "performance.push": None,
    "performance.step": None,
    "performance.gpu_suite.__main__": None,
}
"""Every command with what it needs."""


def main_of(name: str) -> Main:
    main: Main = importlib.import_module(f"launch.{name}").main
    return main


def test_no_command_is_left_out() -> None:
    launch = ROOT / "launch"
    scripts = [path for path in launch.rglob("*.py") if "sys.exit(main(sys.argv[1:]))" in path.read_text()]
    assert {".".join(path.relative_to(launch).with_suffix("").parts) for path in scripts} - COMMAND_PARTS == {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main_of(name)(["--help"])
    except SystemExit as end:  # argparse
        code = int(end.code or 0)
    said = capsys.readouterr()
    assert (code, said.err) == (0, "") and f"launch.{name.removesuffix('.__main__')}" in said.out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_one_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = {"RECIPE": ["open-rs-data" if name == "curate" else "quickstart"], "MODEL_OR_RUN": ["toy"]}
    arguments = needed.get(COMMANDS[name] or "", ["x"] if COMMANDS[name] else [])
    if needed.get(COMMANDS[name] or "") == ["toy"]:
        resolve_model("toy")  # taught where it is not yet, which says things of its own
        capsys.readouterr()
    for option, value in (("--xyzzy", []), ("--xyzzy", ["3"])):
        assert main_of(name)([*arguments, option, *value]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: --xyzzy is not ") and "\n" not in error


@pytest.mark.parametrize("name", [name for name, needed in COMMANDS.items() if needed])
def test_a_missing_argument_is_one_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of(name)([]) == 2
    error = capsys.readouterr().err.strip()
    assert error == f"error: {COMMANDS[name]} is missing (python -m launch.{name} --help says what there is)."


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("verify", "x --dedline 3", "--dedline is not an option; the nearest one is --deadline"),
        ("verify", "x --deadline abc", "--deadline: must be a number from 0.001 to 1,000,000, not 'abc'"),
        ("coverage", "x --cvs y", "--cvs is not an option; the nearest one is --csv"),
        ("coverage", "x y", "'y' was not expected here"),
        ("trace", "x --lsat 3", "the nearest one is --last"),
        ("evaluate", "toy --samlpes 3", "--samlpes is not an option; the nearest one is --samples"),
        ("evaluate", "toy --samples 0", "--samples: must be a whole number of at least 1, not '0'"),
        ("audit", "x --score -1", "--score: must be a whole number from 0 to 10,000, not '-1'"),
        ("audit", "x --head xyz", "--head: must have 8 to 64 hexadecimal digits, not 'xyz'"),
        ("trace", "x --last 0", "--last: must be a whole number of at least 1, not '0'"),
        ("evaluate", "toy --placement.num_gpus 2", "--placement.num_gpus is not a field"),
        ("evaluate", "toy --protocol", "--protocol: expected one argument"),
        ("reproduce", "quickstart --dryrun", "--dryrun is not an option; the nearest one is --dry-run"),
        ("reproduce", "--dryrun quickstart", "--dryrun is not an option; the nearest one is --dry-run"),
        ("train", "quickstart --dryrun", "--dryrun is not an option; the nearest one is --dry-run"),
        ("train", "--dryrun quickstart", "--dryrun is not an option; the nearest one is --dry-run"),
        ("train", "quickstart -dry-run", "'-dry-run' was not expected here: the nearest option is --dry-run"),
        ("train", "quickstart run.steps=3", "change fields with --dotted.field VALUE"),
        ("train", "--help rolout", "There is no section rolout: the nearest one is rollout; there are fidelity, run, "),
        ("probe", "quickstart --run.stepz 3", "the nearest one is run.steps"),
        ("curate", "open-rs-data --dryrun", "the nearest one is --dry-run"),
    ],
)
def test_mistakes(name: str, line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of(name)(line.split()) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and said in error


@pytest.mark.parametrize("name", ["train", "reproduce", "evaluate", "probe"])
def test_help_shows_one_section(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = [*flat(EvaluationConfig() if name == "evaluate" else load_config("quickstart", []))]
    sections = ("engine", "model") if name == "evaluate" else ("rollout", "rewards.cosine", "fidelity")
    for section in sections:
        assert main_of(name)(["--help", section]) == 0
        shown = [word for word in capsys.readouterr().out.split() if word.startswith("--")]
        assert shown == [f"--{field}" for field in fields if f"{field}.".startswith(f"{section}.")]


def test_help_shows_one_section_of_a_data_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of("curate")(["--help", "stages.<mix>"]) == 0
    shown = capsys.readouterr().out
    assert "--stages.<mix>.counts" in shown and "--stages.<solved>" not in shown and "--engines" not in shown


@pytest.mark.parametrize(
    ("name", "recipe", "other"), [("train", "open-rs2", "open-rs-data"), ("curate", "open-rs-data", "open-rs2")]
)
def test_help_lists_the_recipes(name: str, recipe: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of(name)(["--help"]) == 0
    comment = (ROOT / "launch" / "recipes" / f"{recipe}.yaml").read_text().splitlines()[0].removeprefix("# ")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split(maxsplit=1) == [recipe, comment] for line in lines)
    assert not any(line.strip().startswith(other) for line in lines)


def test_the_page_of_all_fields_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == fields_page(), f"make it again: {COMMAND}"
    assert all(f"| `{dotted}` | " in page for dotted in flat(load_config("quickstart", [])))
    assert "rollout" in RunConfig.model_fields


def test_the_page_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    environment = os.environ | {"OPENRS_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.fields", str(tmp_path / "fields.md")]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert (tmp_path / "fields.md").read_text() == fields_page()
