"""`python -m launch.curate`: a user's mistakes, and a model's stage killed in the middle, with real engines."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
import yaml
from commands import ROOT, finish, power_cut, tail, wait_until

from launch.curate import main

PROBLEMS, CHUNK = 90, 15


class Asked(NamedTuple):
    index: int
    replies: list[tuple[str, str]]  # (text, status)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"problem": f"{n}+{n + 1}", "answer": str(2 * n + 1)} for n in range(100, 100 + PROBLEMS)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    content = {
        "name": "sums",
        "folder": str(tmp_path / "data"),
        "sources": {"own": {"path": str(tmp_path / "sums.json")}},
        "stages": {
            "trivial": {
                "kind": "solved",
                "model": "toy",
                "dtype": "float32",
                "prompt": "{problem}",
                "samples": 2,
                "temperature": 1.0,
                "max_prompt_tokens": 16,
                "max_tokens": 64,
            },
            "mixed": {"kind": "mix", "counts": {"own": 5}},
        },
        "engine": {"cpu_cache_gib": 0.05},
        "placement": {"device": "cpu", "threads": 1, "cpus_per_slot": 0.5},
        "chunk": CHUNK,
        "checks": 1,
    }
    path = tmp_path / "sums.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


MISTAKES = {
    "misspelt": (["--stages.trivial.sample", "3"], "stages.trivial.samples"),
    "no value": (["--stages.trivial.samples"], "needs a value"),
    "missing file": (["--sources.own.path", "/nowhere/sums.json"], "sources.own: no data file at /nowhere/sums.json"),
    "missing column": (["--sources.own.columns.problem", "task"], "set sources.own.columns.problem"),
    "no such model": (["--stages.trivial.model", "/nowhere/model"], "stages.trivial: no model at '/nowhere/model'"),
    "longer than the model": (["--stages.trivial.max_tokens", "9000"], "toy takes at most 256 tokens"),
    "no such set": (["--stages.mixed", "{kind: overlaps, against: {aime26: null}}"], "no evaluation set aime26"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(recipe: Path, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    overrides, expected = MISTAKES[mistake]
    assert main([str(recipe), *overrides]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and expected in error
    assert not (recipe.parent / "data").exists(), "nothing was begun"


def test_mistakes_about_the_recipe_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        ([], "RECIPE is missing"),
        (["--dry-run"], "RECIPE is missing"),
        (["launch/recipes/quickstart.yaml"], "quickstart.yaml is of a run: start it with python -m launch.train"),
        (["launch/recipes/nothing.yaml"], "There is no recipe"),
    ):
        assert main([str(ROOT / one) if one.endswith(".yaml") else one for one in arguments]) == 2
        assert expected in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "--stages.<solved>.samples" in capsys.readouterr().out


def test_a_dry_run_says_what_there_is_and_starts_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(recipe), "--dry-run", "--stages.trivial.samples", "3"]) == 0
    said = capsys.readouterr().out
    assert f"own: {PROBLEMS} rows" in said and "01 trivial: solved" in said and "'samples': 3" in said
    assert not (recipe.parent / "data").exists()


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_a_kill_costs_no_finished_chunk(recipe: Path, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "data" / "sums"

    def start(*more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "launch.curate", str(recipe), *more],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*.parquet")}

    def asked_in(stage: Path) -> list[Asked]:
        """The problems of a stage, in the order in which they were asked."""
        completions = pq.read_table(sorted(stage.glob("*.parquet"))).to_pylist()
        return [
            Asked(index, [(one["text"], one["status"]) for one in same])
            for index, same in groupby(completions, lambda one: one["problem_index"])
        ]

    process = start()
    wait_until(lambda: len([*folder.glob("01-trivial/*.parquet")]) >= 2, 240, process, log)
    power_cut(process)
    before, asked = files(), {problem.index for problem in asked_in(folder / "01-trivial")}
    assert CHUNK <= len(asked) < PROBLEMS, "it must be killed in the middle"
    assert not (folder / "01-trivial.parquet").exists() and not (folder / "sums.parquet").exists()

    assert finish(start("--placement.num_rollout_gpus", "2", "--chunk", "20"), log) == 0, tail(log)
    assert before.items() <= files().items(), "what was written stays as it was"
    problems = asked_in(folder / "01-trivial")
    assert [one.index for one in problems if one.index in asked] == [one.index for one in problems[: len(asked)]]
    assert sorted(one.index for one in problems) == list(range(PROBLEMS)), "all asked, nothing twice"
    assert {len(one.replies) for one in problems} == {2} and any(len({*one.replies}) == 2 for one in problems)
    solved = {one.index for one in problems if any(status == "correct" for _, status in one.replies)}
    assert 5 < len(solved) < PROBLEMS - 5, "the toy is right about half the time"
    for one in problems:
        right = str(2 * (100 + one.index) + 1)
        said = [text.rpartition("\\boxed{")[2].rstrip("}") for text, _ in one.replies]
        assert (one.index in solved) is (right in said), "the checks agree with what was said"
    kept = pq.read_table(folder / "01-trivial.parquet", filters=[("kept", "=", True)])["row"].to_pylist()
    assert set(kept) == set(range(PROBLEMS)) - solved
    report = json.loads((folder / "report.json").read_text())["stages"]
    assert [(one["entered"], one["kept"]) for one in report] == [(90, 90), (90, len(kept)), (len(kept), 5)]
    assert pq.read_table(folder / "sums.parquet").num_rows == 5

    # Other chunks and another number of engines: the same seeds, so the same replies but for rounding.
    assert finish(start("--name", "whole"), log) == 0, tail(log)
    whole = asked_in(tmp_path / "data" / "whole" / "01-trivial")
    replies = {one.index: one.replies for one in problems}
    assert sum(replies[one.index] == one.replies for one in whole) >= 0.95 * PROBLEMS

    # An engine that cannot start ends the command with its reason.
    assert finish(start("--name", "small", "--engine.cpu_cache_gib", "0.00001"), log) == 1
    said = tail(log).strip().splitlines()[-1]
    assert said.startswith(
        "error: Rollout worker 0 could not start its vLLM engine: ValueError: No available memory"
    ), tail(log)
