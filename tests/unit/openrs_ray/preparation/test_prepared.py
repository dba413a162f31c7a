"""How training problems and held-out ones are kept apart before a run begins."""

import json
from pathlib import Path

import pytest
from tiny import make_config

from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import prepare


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"problem": text, "answer": "7"}) + "\n" for text in texts))
    return path


def notes(folder: Path, toy: Path, data: Path, **evaluation: object) -> str:
    config = make_config(
        folder, model={"path": str(toy), "dtype": "float32"}, data={"path": str(data)}, evaluation=evaluation
    )
    return "; ".join(prepare(config).notes)


def test_the_training_data_is_no_held_out_data_unless_that_is_meant(tmp_path: Path, toy_folder: Path) -> None:
    data = write(tmp_path / "data.jsonl", [f"{n}+1" for n in range(20)])
    link = tmp_path / "link.jsonl"
    link.symlink_to(data)
    for same in (data, link, tmp_path / ".." / tmp_path.name / "data.jsonl"):
        with pytest.raises(
            UserError, match=r"evaluation\.path is data\.path .* evaluation\.hold_out .*on_training_data"
        ):
            notes(tmp_path, toy_folder, data, path=str(same))
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "part-0.jsonl", [f"{n}+1" for n in range(20)])
    with pytest.raises(UserError, match=r"evaluation\.path is data\.path"):
        notes(tmp_path, toy_folder, folder, path=f"{folder}/../parts")
    said = notes(tmp_path, toy_folder, data, path=str(data), on_training_data=True)
    assert "20 of the 20 held-out problems are trained on, too" in said
    with pytest.raises(UserError, match=r"evaluation\.path is data\.path"):
        config = make_config(tmp_path, model={"path": str(toy_folder), "dtype": "float32"}, data={"path": "toy"})
        prepare(config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"path": "toy"})}))


def test_shared_problems_are_said(tmp_path: Path, toy_folder: Path) -> None:
    data = write(tmp_path / "data.jsonl", [f"{n}+1" for n in range(20)])
    other = write(tmp_path / "other.jsonl", ["5 + 1", "$7+1$", "100+1"])
    assert "2 of the 3 held-out problems are trained on, too" in notes(tmp_path, toy_folder, data, path=str(other))
    apart = write(tmp_path / "apart.jsonl", ["100+1"])
    assert "trained on" not in notes(tmp_path, toy_folder, data, path=str(apart))
    twice = write(tmp_path / "twice.jsonl", [f"{n}+1" for n in range(20)] + [f"{n} + 1" for n in range(20)])
    said = notes(tmp_path, toy_folder, twice, hold_out=8)
    assert "8 problems held out, and 8 rows left out that are the same in other spellings" in said


def test_seeds_of_one_experiment_hold_out_the_same_problems(tmp_path: Path, toy_folder: Path) -> None:
    data = write(tmp_path / "data.jsonl", [f"{n}+1" for n in range(40)])
    sections = {"model": {"path": str(toy_folder), "dtype": "float32"}, "data": {"path": str(data)}}

    def held_out(run_seed: int, draw: int) -> set[str]:
        run = {"name": "test", "folder": str(tmp_path), "steps": 10, "seed": run_seed}
        evaluation = {"hold_out": 8, "hold_out_seed": draw}
        return {p.text for p in prepare(make_config(tmp_path, run=run, evaluation=evaluation, **sections)).held_out}

    assert held_out(1, 0) == held_out(2, 0) != held_out(1, 5)


def test_a_built_in_held_out_set_has_columns_of_its_own(tmp_path: Path, toy_folder: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"q": f"{n}+1", "gold": {"value": n + 1}}) + "\n" for n in range(20)))
    columns = {"problem": "q", "answer": "gold.value"}
    config = make_config(
        tmp_path,
        model={"path": str(toy_folder), "dtype": "float32"},
        data={"path": str(data), "columns": columns},
        evaluation={"path": "toy-heldout", "problems": 30},
    )
    prepared = prepare(config)
    assert len(prepared.problems) == 20 and prepared.problems[3].gold == ("4",) and len(prepared.held_out) == 30


def test_a_guard_that_may_go_back_and_change_nothing_is_refused_at_a_start_only(
    tmp_path: Path, toy_folder: Path
) -> None:
    """A run of an earlier version may have such settings, and can still be read."""
    model = {"path": str(toy_folder), "dtype": "float32"}
    config = make_config(tmp_path, model=model, guard={"action": "roll_back", "knobs": []})
    with pytest.raises(UserError, match=r"guard\.action roll_back needs a setting to change: name one in guard\.knobs"):
        prepare(config)
    prepare(make_config(tmp_path, model=model, guard={"action": "warn", "knobs": []}))


def test_a_data_set_of_the_projects_own_that_is_not_there_is_named_with_its_recipe(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path))
    model = {"path": str(toy_folder), "dtype": "float32"}
    made, other = tmp_path / "data" / "sanity" / "sanity.parquet", tmp_path / "data" / "sanity" / "mine.parquet"
    with pytest.raises(UserError, match=r"no data file at .*; python -m launch\.curate sanity-data makes this one$"):
        prepare(make_config(tmp_path, model=model, data={"path": str(made)}))
    with pytest.raises(UserError, match=r"set data\.path \(or evaluation\.path\) to a file that exists$"):
        prepare(make_config(tmp_path, model=model, data={"path": str(other)}))
