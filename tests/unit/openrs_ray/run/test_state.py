"""A run goes on with all of its files or not at all: each is taken away, emptied and falsified in turn."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from whole_run import write_run

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.run.attempts import read_attempts, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.completion_files import record_files
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.resume import begin_run, check_run

FILES = ("cost.json", "problems.json", "config.json", "checkpoints/manifest.json", "attempts.jsonl", "metrics.jsonl")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("right") / "run")


@pytest.fixture
def run(right: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(right, tmp_path / "run"))


def config_of(right: Path, run: Path) -> RunConfig:
    content = json.loads((right / "config.json").read_text())
    content["run"]["folder"] = str(run.parent)
    return RunConfig.model_validate(content)


def refused(right: Path, run: Path) -> str:
    """The sentence that a resume ends with, before anything starts."""
    with pytest.raises(UserError) as error:
        check_run(config_of(right, run), resume=True)
        Budget(config_of(right, run), age_s=0.0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_run_goes_on(right: Path, run: Path) -> None:
    check_run(config_of(right, run), resume=True)
    with pytest.raises(UserError, match="exists already"):
        check_run(config_of(right, run), resume=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(right: Path, run: Path, name: str) -> None:
    (run / name).unlink()
    sentence = refused(right, run)
    assert name in sentence and "is not whole" in sentence and "restore it" in sentence
    with pytest.raises(UserError, match="exists already"):  # nor does it begin anew in the same folder
        check_run(config_of(right, run), resume=False)


@pytest.mark.parametrize("missing", [FILES[1:], FILES[:5], ("config.json", "cost.json")])
def test_several_that_are_missing_are_no_new_run(right: Path, run: Path, missing: tuple[str, ...]) -> None:
    for name in missing:
        (run / name).unlink()
    assert "is missing" in refused(right, run)


def test_a_record_that_is_missing_is_named(right: Path, run: Path) -> None:
    shutil.rmtree(run / "completions")
    assert "completions/ has no rows of step 6, which a checkpoint covers" in refused(right, run)


def test_the_figures_reach_as_far_as_the_checkpoints(right: Path, run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert "metrics.jsonl has no line of step 6, which a checkpoint covers" in refused(right, run)


@pytest.mark.parametrize(
    "content", ["{}", "null", "[]", "", '{"checkpoints": 3, "attempt": 1, "spent": {}, "step": "1"}']
)
@pytest.mark.parametrize("name", [*FILES, "result.json"])
def test_a_file_without_its_shape_is_refused(right: Path, run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    sentence = refused(right, run)
    assert name in sentence and ("damaged" in sentence or "is not whole" in sentence)


def spent(**changes: Any) -> dict[str, Any]:
    return {"spent": {"dollars": 1.5, "gpu_hours": 3.0, "hours": 0.75} | changes}


@pytest.mark.parametrize(
    "content",
    [
        spent(dollars=-2.0),
        spent(hours=-0.01),
        spent(gpu_hours="3"),
        spent(dollars=None),
        spent(dollars=True),
        spent(euros=2.0),
        spent() | {"seconds": {"step": [-1.0]}},
        spent() | {"seconds": {"step": 3}},
        spent() | {"seconds": [3.0]},
        {"spent": {"dollars": 1.5}},
        {"seconds": {}},
    ],
)
def test_an_account_that_cannot_be_is_refused(right: Path, run: Path, content: dict[str, Any]) -> None:
    (run / "cost.json").write_text(json.dumps(content))
    assert "cost.json is damaged" in refused(right, run)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_dollars_that_are_no_number_are_refused(right: Path, run: Path, number: str) -> None:
    (run / "cost.json").write_text(json.dumps(spent()).replace("1.5", number))
    assert "cost.json is damaged" in refused(right, run)


def test_another_seed_is_refused(right: Path, run: Path) -> None:
    content = json.loads((run / "config.json").read_text())
    content["run"]["seed"] = 7
    (run / "config.json").write_text(json.dumps(content))
    assert "run.seed was 7" in refused(right, run)


def test_attempts_that_were_lost_are_not_counted_anew(right: Path, run: Path) -> None:
    """The number of an attempt is in every file's name: given twice, both attempts' rows would count."""
    lines = (run / "attempts.jsonl").read_text().splitlines(keepends=True)
    (run / "attempts.jsonl").write_text(lines[0])
    assert "attempts.jsonl has no line of attempt 2" in refused(right, run)
    assert start_attempt(run, 6) == 3
    (run / "attempts.jsonl").unlink()
    assert start_attempt(run, 6) == 3
    (run / "attempts.jsonl").write_text(lines[0] + lines[1] + lines[1])
    assert "attempt 2 stands in it twice" in refused(right, run)


def test_the_files_come_in_an_order_of_which_any_part_goes_on(right: Path, tmp_path: Path) -> None:
    """A kill at the start of a run leaves some of them; without a config it has not begun."""
    order: tuple[Callable[[Path], Path], ...] = (
        *(lambda folder, name=name: folder / name for name in FILES[:5]),  # type: ignore[misc]
        lambda folder: record_files(folder)[0].path,
    )
    for count in range(len(order) + 1):
        run = tmp_path / str(count) / "run"
        run.mkdir(parents=True)
        for part in order[:count]:
            source = part(right)
            target = run / source.relative_to(right)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
        if count >= 4:
            (run / "checkpoints" / "manifest.json").write_text('{"checkpoints": []}')
        config = config_of(right, run)
        check_run(config, resume=True)
        if count >= 3:
            with pytest.raises(UserError, match="exists already"):
                check_run(config, resume=False)
        else:
            check_run(config, resume=False)


def test_a_start_that_was_killed_before_its_config_may_have_other_problems(right: Path, tmp_path: Path) -> None:
    def begin(fingerprint: str) -> RunProblems | None:
        problems = RunProblems(fingerprint, 1, text_digests(["1 + 1"]))
        begin_run(config, problems)
        return RunProblems.read(config.run.path)

    config = config_of(right, tmp_path / "run")
    config.run.path.mkdir()
    assert begin("first") is not None
    (config.run.path / "config.json").unlink()
    after = begin("second")
    assert after is not None and after.fingerprint == "second"
    with pytest.raises(UserError, match="have changed since run run began"):
        begin("third")


def test_an_attempt_notes_what_it_allows(right: Path) -> None:
    lines = [json.loads(line) for line in (right / "attempts.jsonl").read_text().splitlines()]
    assert [(line["staleness"], line["replaced_per_step"]) for line in lines] == [(1, 3), (1, 3)]
    assert read_attempts(right) == {1: 0, 2: 2}
