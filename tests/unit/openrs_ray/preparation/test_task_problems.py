"""Problems of several tasks: one after the other, held-out ones apart, and enough for a step."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_config

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import prepare
from openrs_ray.preparation.preview import look_lines
from openrs_ray.run.problems import RunProblems


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"problem": text, "answer": "7", "level": 3}) + "\n" for text in texts))
    return str(path)


def config_of(folder: Path, toy: Path, data: Any, **evaluation: Any) -> RunConfig:
    config = make_config(folder, model={"path": str(toy), "dtype": "float32"}, evaluation=evaluation)
    return RunConfig.model_validate(config.model_dump(mode="json") | {"data": data})


@pytest.fixture
def sums(tmp_path: Path) -> str:
    return write(tmp_path / "sums.jsonl", [f"{n}+1" for n in range(10)])


@pytest.fixture
def others(tmp_path: Path) -> str:
    return write(tmp_path / "others.jsonl", [f"{n};1" for n in range(6)])


def test_tasks_follow_each_other_and_hold_out_their_own(
    tmp_path: Path, toy_folder: Path, sums: str, others: str
) -> None:
    held = write(tmp_path / "held.jsonl", ["9;9", "8;8", "7;7"])
    data = [{"path": sums}, {"path": others, "name": "b", "evaluation": {"path": held, "problems": 2}}]
    config = config_of(tmp_path, toy_folder, data, hold_out=3)
    prepared = prepare(config)
    assert [problem.task for problem in prepared.problems] == ["sums"] * 7 + ["b"] * 6
    assert [problem.index for problem in prepared.problems] == list(range(13))
    assert [(problem.index, problem.task) for problem in prepared.held_out] == [
        *((n, "sums") for n in range(3)), (3, "b"), (4, "b"),
    ]  # fmt: skip
    assert {problem.text for problem in prepared.held_out[3:]} == {"9;9", "8;8"}
    assert all(problem.row["level"] == 3 for problem in prepared.problems)
    assert any(note.startswith("sums: 10 of 10 problems") for note in prepared.notes)
    summary = prepared.summary()
    assert summary.tasks == summary.sizes == {"sums": 7, "b": 6}
    summary.write(tmp_path)
    assert RunProblems.read(tmp_path) == summary
    shown = "\n".join(look_lines(config, prepared))
    assert "first prompt of sums, " in shown and "first prompt of b, " in shown
    renamed = [data[0], data[1] | {"name": "c"}]
    again = prepare(config_of(tmp_path, toy_folder, renamed, hold_out=3)).summary()
    assert again.fingerprint != summary.fingerprint, "a task's name is part of what is drawn"


def test_a_run_of_one_section_has_the_digest_that_it_always_had(tmp_path: Path, toy_folder: Path, sums: str) -> None:
    prepared = prepare(config_of(tmp_path, toy_folder, {"path": sums}, hold_out=2))
    content = hashlib.sha256()
    for problem in (*prepared.problems, *prepared.held_out):
        content.update(repr((problem.index, problem.prompt_ids, problem.gold)).encode())
    assert prepared.summary().fingerprint == content.hexdigest()
    prepared.summary().write(tmp_path)
    assert {*json.loads((tmp_path / "problems.json").read_text())} == {"fingerprint", "count", "texts", "model"}


def test_a_problem_held_out_of_one_task_and_trained_on_in_another_is_said(
    tmp_path: Path, toy_folder: Path, sums: str
) -> None:
    copy = write(tmp_path / "copy.jsonl", [f"{n} + 1" for n in range(10)])
    data = [{"path": sums, "evaluation": {"hold_out": 4}}, {"path": copy}]
    notes = prepare(config_of(tmp_path, toy_folder, data)).notes
    assert "4 of the 4 held-out problems are trained on, too" in notes


def test_a_step_must_not_ask_a_problem_twice(tmp_path: Path, toy_folder: Path, sums: str, others: str) -> None:
    few = write(tmp_path / "few.jsonl", ["1;1", "2;2"])
    data = [{"path": sums}, {"path": few, "weight": 3}]
    sentence = r"problems_per_step is 4, 3 of them of task few, but .*few\.jsonl has only 2 usable problems"
    with pytest.raises(UserError, match=sentence):
        prepare(config_of(tmp_path, toy_folder, data))
    prepare(config_of(tmp_path, toy_folder, [{"path": sums, "weight": 3}, {"path": few}]))


def test_what_is_held_out_of_a_task_is_not_its_own_data(
    tmp_path: Path, toy_folder: Path, sums: str, others: str
) -> None:
    data = [{"path": sums}, {"path": others, "evaluation": {"path": others}}]
    with pytest.raises(UserError, match=r"evaluation\.path of task others is data\.path"):
        prepare(config_of(tmp_path, toy_folder, data))
    with pytest.raises(UserError, match=r"nowhere"):
        prepare(config_of(tmp_path, toy_folder, [{"path": sums}, {"path": str(tmp_path / "nowhere.jsonl")}]))
