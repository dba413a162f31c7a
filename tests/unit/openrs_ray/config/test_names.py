"""Recipes by name, file or run, and runs by name or folder, alike in every command; a typo lists what there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from launch import coverage, curate, evaluate, reproduce, trace, train
from launch import probe as check
from openrs_ray.config.load import load_config
from openrs_ray.config.names import RECIPES, find_recipe, find_run, recipes
from openrs_ray.errors import UserError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs, with two of them and something that is none; the working directory is empty."""
    folder = tmp_path / "runs"
    config = load_config("quickstart", ["--run.folder", str(folder), "--run.steps", "7"]).model_dump(mode="json")
    for name in ("sums-1", "sums-2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config | {"run": config["run"] | {"name": name}}))
    (folder / "evaluations").mkdir()
    monkeypatch.setenv("OPENRS_RUNS", str(folder))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return folder


def said(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_a_recipe_s_name_means_the_same_in_every_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main in (train.main, reproduce.main, check.main):
        for name in ("open-rs3", "open-rs3.yaml", str(RECIPES / "open-rs3.yaml")):
            assert "--run.steps is 0" in said(capsys, main([name, "--run.steps", "0"]))
    assert "--seed is -1" in said(capsys, curate.main(["open-rs-data", "--seed", "-1"]))


def test_every_command_answers_a_misspelt_recipe_with_the_nearest(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main in (train.main, reproduce.main, check.main, curate.main):
        assert "There is no recipe opn-rs3; by name there are open-rs3, " in said(capsys, main(["opn-rs3"]))
    assert "quickstart" in said(capsys, train.main(["quikstart"])).split("by name there are ")[1].split(", ")[0]


def test_the_command_finds_its_recipes_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.train", "open-rs3", "--learner.zero_stage", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: --learner.zero_stage is 4; allowed: 1 or 2 or 3.\n")


def test_a_recipe_of_the_other_kind_names_its_command(runs: Path) -> None:
    with pytest.raises(UserError, match=r"is of a data set: make it with python -m launch\.curate"):
        load_config("open-rs-data", [])


def test_a_file_of_one_s_own_needs_no_ending_and_stands_behind_the_project_s_names(runs: Path) -> None:
    Path("mine.yaml").write_text("extends: quickstart\nrun: {name: mine}\n")
    Path("open-rs3.yaml").write_text("extends: quickstart\n")
    Path("quickstart").mkdir()  # a folder of that name is no recipe
    assert load_config("mine", []).run.name == "mine"
    assert load_config("open-rs3", []).run.name == "open-rs3"
    assert load_config("./open-rs3.yaml", []).run.name == "quickstart"
    with pytest.raises(UserError, match=r"no recipe mime; \. has mine\.yaml, open-rs3\.yaml; by name there are "):
        load_config("mime", [])


def test_a_run_is_a_recipe_with_its_own_settings_where_it_lies_now(runs: Path, tmp_path: Path) -> None:
    for given in ("sums-1", str(runs / "sums-1")):
        config = load_config(given, ["--cost.max_hours", "2"])
        assert (config.run.path, config.run.steps, config.cost.max_hours) == (runs / "sums-1", 7, 2)
    (runs / "sums-2").rename(tmp_path / "moved")
    assert load_config(tmp_path / "moved", []).run.path == tmp_path / "moved"


def test_a_run_s_settings_survive_the_way_through_its_file(runs: Path) -> None:
    changed = ["--data.system_prompt", 'a "b" é 😀 #', "--learner.learning_rate", "1e-07", "--fidelity", "as_published"]
    config = load_config("open-rs3", [*changed, "--run.folder", str(runs), "--run.name", "as-it-is"])
    config.run.path.mkdir()
    (config.run.path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    assert load_config("as-it-is", []) == config


def test_a_run_is_found_by_name_and_by_folder_in_every_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("sums-1", str(runs / "sums-1"), "../runs/sums-1"):
        assert find_run(given).resolve() == runs / "sums-1"
        assert "problems.json cannot be read" in said(capsys, coverage.main([given]))
        assert "has no trace: " in said(capsys, trace.main([given]))
        assert "Run sums-1 in" in said(capsys, evaluate.main([given, "--benchmarks", "aime24"]))
        assert "--run.steps is 0" in said(capsys, reproduce.main([given, "--run.steps", "0"]))


def test_every_command_answers_a_misspelt_run_with_the_nearest(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = f"{runs} has sums-2, sums-1"
    for main in (coverage.main, trace.main, evaluate.main):
        assert listed in said(capsys, main(["sum-2"]))


def test_without_a_run_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"there is no run mine: .*none has none"):
        find_run("mine")


@pytest.mark.parametrize("given", ["", ".", "..", "/", "~nobody/x", "x" * 5000, "a/" * 3000, "a\0b", "a\nb", "launch"])
def test_whatever_is_no_name_is_one_sentence(runs: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("launch").mkdir()
    for main in (train.main, curate.main, coverage.main, trace.main, evaluate.main):
        said(capsys, main([given]))


@pytest.mark.parametrize(
    "content", ['{"run": null, "rollout": {}, "data": {}}', '{"run": {}, "rollout": [], "data": 3}']
)
def test_a_run_with_a_config_that_is_none_is_one_error(runs: Path, content: str) -> None:
    (runs / "sums-1" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"sums-1/config\.json: "):
        load_config("sums-1", [])


def test_long_lists_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path))
    for number in range(30):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "config.json").write_text('{"run": {}, "rollout": {}, "data": {}}')
    with pytest.raises(UserError, match=r"has run-29, .* and 10 more$"):
        find_run("run-299")


def test_every_recipe_says_in_its_first_line_what_it_is() -> None:
    known = recipes("run") | recipes("data")
    assert known.keys() == {path.stem for path in RECIPES.glob("*.yaml")}
    assert all(20 < len(comment) <= 76 for comment in known.values())
    assert {name for name in known if name.endswith("-data")} == recipes("data").keys()


def test_the_name_of_a_recipe_that_extends_means_its_neighbour_first(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("run: {name: neighbour}\n")
    assert find_recipe("quickstart", beside=tmp_path / "mine.yaml") == tmp_path / "quickstart.yaml"
    assert find_recipe("quickstart", beside=tmp_path / "quickstart.yaml") == RECIPES / "quickstart.yaml"
