"""A list of data sets: tasks, defaults, the command line, sentences about mistakes, and what a resume may change."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from openrs_ray.config.data import DataSet
from openrs_ray.config.load import flat, load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.run.resume import check_resumable

SETS: list[dict[str, Any]] = [
    {"path": "/data/sums.jsonl", "weight": 3},
    {
        "path": "owner/products",
        "rewards": {"weights": {"accuracy": 1.0}, "extraction": "any"},
        "answer": {"kind": "number"},
        "evaluation": {"hold_out": 5},
    },
]


def write(folder: Path, data: Any, **sections: Any) -> Path:
    content = {
        "run": {"name": "r", "folder": str(folder), "steps": 3},
        "model": {"path": "toy"},
        "data": data,
        "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 8},
    } | sections
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def load(folder: Path, data: Any = SETS, *overrides: str, **sections: Any) -> RunConfig:
    return load_config(write(folder, data, **sections), overrides)


def refused(folder: Path, data: Any, *overrides: str, **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, data, *overrides, **sections)
    return str(caught.value)


def test_each_entry_is_a_task_with_the_recipe_s_sections_where_it_has_none(tmp_path: Path) -> None:
    rewards = {"weights": {"accuracy": 2.0, "format": 0.5}, "processes": 7, "deadline_s": 9.0}
    config = load(tmp_path, rewards=rewards, evaluation={"hold_out": 2, "samples": 3})
    sums, products = config.tasks
    assert (sums.name, sums.weight, sums.held_out.hold_out, sums.answer.kind) == ("sums", 3.0, 2, "math")
    assert sums.rewards == config.rewards
    assert (products.name, products.weight, products.held_out.hold_out) == ("products", 1.0, 5)
    assert products.answer.kind == "number" and products.rewards.weights == {"accuracy": 1.0}
    assert (products.rewards.processes, products.rewards.deadline_s) == (7, 9.0), "the pool is one for all"
    assert products.rewards.extraction == "any" and config.task("products") == products


def test_one_section_is_one_task_without_a_name(tmp_path: Path) -> None:
    config = load(tmp_path, {"path": "toy"}, evaluation={"path": "toy-heldout", "problems": 9})
    (task,) = config.tasks
    assert (task.name, task.data, task.rewards, task.held_out) == ("", config.data, config.rewards, config.evaluation)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/additions.jsonl.gz", "additions"),
        ("openai/gsm8k", "gsm8k"),
        ("reasoning-gym:chain_sum", "chain_sum"),
        ("folder/of parts/", "of-parts"),
        ("../_x.csv", "x"),
        ("ä", "data"),
    ],
)
def test_a_task_is_named_after_its_path(path: str, name: str) -> None:
    assert DataSet.model_validate({"path": path}).name == name
    assert DataSet.model_validate({"path": path, "name": "mine"}).name == "mine"


def test_a_config_of_several_is_written_read_and_sent_as_it_is(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert pickle.loads(pickle.dumps(config)) == config and pickle.loads(pickle.dumps(config.tasks)) == config.tasks


def test_the_command_line_changes_an_entry(tmp_path: Path) -> None:
    config = load(tmp_path, SETS, "--data[1].weight", "2.5", "--data[0].columns.answer=gold")
    assert config.tasks[1].weight == 2.5 and config.tasks[0].data.columns.answer == "gold"
    whole = load(tmp_path, {"path": "toy"}, "--data", "[{path: a, weight: 2}, {path: b}]")
    assert [(task.name, task.weight) for task in whole.tasks] == [("a", 2.0), ("b", 1.0)]


def entry(**changes: Any) -> list[dict[str, Any]]:
    return [{"path": "a"}, {"path": "b"} | changes]


@pytest.mark.parametrize(
    ("data", "overrides", "sentence"),
    [
        (entry(weight=0), (), "data[1].weight is 0; allowed: number > 0"),
        (entry(weigth=2), (), "data[1].weigth is not a field; the nearest one is data[1].weight"),
        (entry(columns={"problm": "q"}), (), "the nearest one is data[1].columns.problem"),
        (
            entry(rewards={"processes": 3}),
            (),
            "data[1].rewards.processes is not a field; the nearest one is rewards.processes",
        ),
        (entry(rewards={"extraction": "bxed"}), (), 'data[1].rewards.extraction is "bxed"; allowed: boxed or any'),
        (
            entry(evaluation={"path": "c", "hold_out": 3}),
            (),
            "data[1]: evaluation.hold_out takes the held-out problems from",
        ),
        ([{"path": "a"}, {"weight": 2}], (), "data[1].path is missing; give text"),
        (
            [{"path": "a"}, {"path": "x/a.csv"}],
            (),
            "data[0] and data[1] are both named a: give data[1].name another one",
        ),
        (entry(name="no spaces please"), (), "data[1].name is"),
        ([{"path": "a"}, 7], (), "data[1] is 7; allowed: section with path"),
        ([], (), "data is []; allowed: section with path"),
        (7, (), "data is 7; allowed: section with path"),
        (
            SETS,
            ("--data.path", "x"),
            "--data.path: data is a list here, so say which one is meant, such as data[0].path",
        ),
        (SETS, ("--data[7].path", "x"), "--data[7].path is not a field"),
        (SETS, ("--data[1].weight", "-1"), "--data[1].weight is -1; allowed: number > 0"),
        (SETS, ("--dataset_name", "x"), "--dataset_name is not a field; here it is data[0].path"),
        ({"path": "a"}, ("--data[0].path", "x"), "--data[0].path is not a field; the nearest one is data.path"),
        (entry(rest_after=2, rest_for=101), (), "data[1].rest_for is 101; allowed: whole number > 0 and <= 100"),
        (entry(answer={"kind": "none"}, rest_after=2), (), "data.rest_after of task b goes by right and wrong answers"),
    ],
)
def test_a_mistake_is_said_with_its_place(tmp_path: Path, data: Any, overrides: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(tmp_path, data, *overrides)


def test_what_is_for_one_data_set_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, SETS, evaluation={"path": "c"})
    assert "evaluation.path is for one data set: where data is a list, give data[0].evaluation.path" in said
    assert "fidelity as_published goes with one section data" in refused(tmp_path, SETS, fidelity="as_published")


def test_a_recipe_s_own_list_replaces_that_which_it_extends(tmp_path: Path) -> None:
    write(tmp_path, SETS).rename(tmp_path / "base.yaml")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\ndata: [{path: c}]\n")
    assert [task.name for task in load_config(child, []).tasks] == ["c"]
    child.write_text("extends: base.yaml\ndata: {path: toy}\n")
    assert [task.name for task in load_config(child, []).tasks] == [""]
    child.write_text("extends: base.yaml\ndata: [{path: c}, {path: d, weight: x}]\n")
    with pytest.raises(UserError, match=r"child\.yaml: data\[1\]\.weight is"):
        load_config(child, [])


def test_a_marker_before_the_answer_has_a_character(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'answer_after is ""; allowed: non-empty text or null'):
        load(tmp_path, {"path": "toy"}, "--data.columns.answer_after", "")


def test_a_resume_keeps_the_weights_and_all_else_that_is_learned_from(tmp_path: Path) -> None:
    saved = load(tmp_path).model_dump(mode="json")
    check_resumable(saved, load(tmp_path))
    check_resumable(saved, load(tmp_path, SETS, "--data[0].max_unparseable_share", "0.5"))
    for change, field in {
        ("--data[0].weight", "2"): "data[0].weight",
        ("--data[1].rewards.weights.accuracy", "3"): "data[1].rewards.weights",
        ("--data[0].rest_after", "2"): "data[0].rest_after",
        ("--data[1].answer.kind", "math"): "data[1].answer.kind",
    }.items():
        with pytest.raises(UserError) as caught:
            check_resumable(saved, load(tmp_path, SETS, *change))
        assert str(caught.value).startswith(f"{field} was ") and "cannot become" in str(caught.value)
    for other, number in ((SETS[:1], 1), ([*SETS, {"path": "third"}], 3), ({"path": "/data/sums.jsonl"}, 1)):
        with pytest.raises(
            UserError, match=f"the number of data sets was 2 when run r began and cannot become {number}"
        ):
            check_resumable(saved, load(tmp_path, other))
    alone = load(tmp_path, {"path": "/data/sums.jsonl"}).model_dump(mode="json")
    with pytest.raises(UserError, match=r"data\[0\]\.columns\.answer was nothing"):
        check_resumable(alone, load(tmp_path, SETS[:1]))


def test_an_entry_is_flat_under_its_number(tmp_path: Path) -> None:
    values = flat(load(tmp_path))
    assert values["data[0].weight"] == 3.0 and values["data[1].evaluation.hold_out"] == 5
    assert values["data[0].rewards"] is None and "data" not in values
