"""Problems of reasoning-gym and verifiers as rows, against the libraries called directly."""

import sys
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from places import SUPPORT

from openrs_ray.common import extras
from openrs_ray.config.data import Data
from openrs_ray.data.libraries import library_rows
from openrs_ray.errors import UserError
from openrs_ray.rewards.libraries.call import Library

PACKAGES = SUPPORT / "verifiers_environments"


def read(path: str, curriculum: list[dict[str, Any]] | None = None, **parameters: Any) -> list[dict[str, Any]]:
    return library_rows(Data(path=path, parameters=parameters, curriculum=curriculum or []))  # type: ignore[arg-type]


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("verifiers", reason="the extra verifiers is not installed")
    monkeypatch.syspath_prepend(PACKAGES)


@pytest.mark.parametrize("extra", ["reasoning-gym", "verifiers"])
def test_a_missing_extra_is_one_sentence_with_the_command(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"needs the package {extra}: run `bash launch/setup.sh {extra}`"):
        read(f"{extra}:x")


@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "rearc"])
def test_rows_are_the_library_s_own_entries(name: str) -> None:
    library = pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    rows = read(f"reasoning-gym:{name}", seed=7, size=5)
    made = library.create_dataset(name, seed=7, size=5)
    assert [{key: row[key] for key in ("question", "answer", "metadata")} for row in rows] == list(made)
    assert all(row["problem"] == row["question"] for row in rows)


def test_rows_of_sets_that_follow_hashes_are_the_same_in_every_process() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    first = read("reasoning-gym:ransom_note", size=20)
    assert first == read("reasoning-gym:ransom_note", size=20), "the same seed, 0, without being asked"
    assert first != read("reasoning-gym:ransom_note", size=20, seed=1)


def test_mistakes_in_parameters_are_one_sentence() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    with pytest.raises(UserError, match=r"there is no data set 'chain_sm': there are ab, acre,.* chain_sum"):
        read("reasoning-gym:chain_sm")
    with pytest.raises(UserError, match="it has no parameter terms: it has min_terms, max_terms, min_digits"):
        read("reasoning-gym:chain_sum", terms=3)
    with pytest.raises(UserError, match="its parameters do not fit: max_terms must be >= min_terms"):
        read("reasoning-gym:chain_sum", min_terms=9)
    with pytest.raises(UserError, match=r"its parameters do not fit: '.*' not supported between"):
        read("reasoning-gym:chain_sum", min_terms="three")


def test_a_curriculum_is_stage_after_stage_and_no_problem_comes_twice() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    stages = [{"level": 0, "problems": 30}, {"level": {"num_terms": 4}, "problems": 20}, {"level": 6, "problems": 10}]
    rows = read("reasoning-gym:chain_sum", stages, seed=5, allow_negation=True)
    terms = [row["metadata"]["num_terms"] for row in rows]
    assert len(rows) == 60 and set(terms[:30]) == {2} and max(terms[30:50]) == 6 and max(terms[50:]) > 6
    digits = [row["metadata"]["num_digits"] for row in rows]
    assert set(digits[:50]) == {1}, "an attribute that a stage does not name stays at its first level"
    assert [row["parameters"]["seed"] for row in (rows[0], rows[30], rows[50])] == [5, 35, 55]
    assert not Data(path="reasoning-gym:chain_sum", curriculum=stages).shuffle  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"the curriculum's level sets max_terms, min_terms: leave that out"):
        read("reasoning-gym:chain_sum", stages, min_terms=3, max_terms=4)
    with pytest.raises(UserError, match="levels 0 to 10 of num_terms, and 99 is none of them"):
        read("reasoning-gym:chain_sum", [{"level": {"num_terms": 99}}])
    with pytest.raises(UserError, match=r"leave out data\.parameters\.size"):
        read("reasoning-gym:chain_sum", stages, size=4)


def test_a_library_s_own_classes_do_not_come_into_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_rows.py").write_text(
        "import datetime, fractions, numpy\n"
        "class Loud(str): pass\n"
        "class Hidden:\n"
        "    def __reduce__(self): return eval, ('1 + 1',)\n"
        "def loud(): return [{'problem': Loud('1 + 1')}]\n"
        "def hidden(): return [{'problem': Hidden()}]\n"
        "def plain(): return [{'a': numpy.int64(3), 'b': datetime.date(2026, 1, 2), 'c': fractions.Fraction(1, 2), 'd': {1}}]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with Library("call", "data.path x:y") as library:
        for function, holds in (("loud", "loud_rows.Loud"), ("hidden", "builtins.eval")):
            with pytest.raises(UserError, match=rf"data\.path x:y cannot be read: .* object of {holds}, which stays"):
                library.call("called", ("loud_rows", function, ()))
        (row,) = library.call("called", ("loud_rows", "plain", ()))
    assert row == {"a": 3, "b": date(2026, 1, 2), "c": Fraction(1, 2), "d": {1}}
    assert "loud_rows" not in sys.modules


@pytest.mark.usefixtures("environments")
def test_texts_of_an_environment_s_own_class_are_texts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_words.py").write_text(
        "import verifiers.v1 as vf\n"
        "from typing import Any\n"
        "class Loud(str): pass\n"
        "class Data(vf.TaskData):\n    note: Any = None\n"
        "class Task(vf.Task[Data]):\n"
        "    @property\n"
        "    def key(self): return Loud('ab')\n"
        "class Tasks(vf.Taskset[Task, vf.TasksetConfig]):\n"
        "    def load(self): return [Task(Data(prompt=Loud('1 + 1'), note={Loud('a'): Loud('b')}))]\n"
        "__all__ = ['Tasks']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (row,) = read("verifiers:loud_words")
    assert (
        row["problem"] == [{"role": "user", "content": "1 + 1"}]
        and row["task"]["note"] == {"a": "b"}
        and row["key"] == "ab"
    )
    assert "loud_words" not in sys.modules


def test_parameters_are_for_problems_of_libraries() -> None:
    with pytest.raises(ValueError, match="is for reasoning-gym:NAME and verifiers:NAME, not toy: leave it out"):
        Data(path="toy", parameters={"size": 3})
    with pytest.raises(ValueError, match=r"data\.curriculum is for reasoning-gym:NAME, not verifiers:x"):
        Data(path="verifiers:x", curriculum=[{"level": 1}])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"data\.curriculum has an order: leave out data\.shuffle"):
        Data(path="reasoning-gym:x", curriculum=[{"level": 1}, {"level": 2}], shuffle=True)  # type: ignore[list-item]


@pytest.mark.usefixtures("environments")
def test_tasks_of_an_environment_come_with_the_messages_that_open_them() -> None:
    rows = read("verifiers:reversed-words", words=3)
    system, user = rows[1]["problem"]
    assert (system, user) == (
        {"role": "system", "content": "You reverse words."},
        {"role": "user", "content": "Reverse 1220"},
    )
    assert rows[1]["answer"] == "0221" and rows[1]["task"]["idx"] == 1 and len(rows) == 3
    (first, second) = read("verifiers:guess_a_number", select={"limit": 2})
    assert first["problem"] == [{"role": "user", "content": "Guess a number from 1 to 99."}], "opened by its user"
    assert second["task"]["seed"] == 1


UNFIT = {
    "two_agents": (
        "class Config(vf.EnvConfig):\n    one: vf.AgentConfig = vf.AgentConfig()\n    other: vf.AgentConfig = vf.AgentConfig()\n"
        "class Two(vf.Env[Config]):\n    async def run(self, task, agents): ...\n__all__ = ['Two', 'Tasks']",
        "it has the agents one, other, and only environments with one agent",
    ),
    "rewrites": (
        "class Task(vf.Task[vf.TaskData]):\n    @vf.intercept\n    def guard(self, response: vf.Response): ...\n",
        "it rewrites what the model says",
    ),
    "in_a_box": ("class Task(vf.Task[vf.TaskData]):\n    NEEDS_CONTAINER = True\n", "its tasks need a container"),
    "runs_programs": (
        "class Task(vf.Task[vf.TaskData]):\n    @vf.reward\n    async def right(self, trace, runtime): return 1.0\n",
        "right of its tasks needs a runtime",
    ),
}


@pytest.mark.usefixtures("environments")
@pytest.mark.parametrize("name", UNFIT)
def test_an_environment_that_needs_more_than_conversations_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, reason = UNFIT[name]
    task = "Task" if "class Task" in body else "vf.Task"
    (tmp_path / f"{name}.py").write_text(
        f"import verifiers.v1 as vf\n{body}\n"
        f"class Tasks(vf.Taskset[{task}, vf.TasksetConfig]):\n    def load(self): return [{task}(vf.TaskData(prompt='1'))]\n"
        + ("" if "__all__" in body else "__all__ = ['Tasks']\n")
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"data\.path verifiers:{name}: {reason}"):
        read(f"verifiers:{name}")


@pytest.mark.slow
@pytest.mark.usefixtures("environments")
def test_mistakes_about_environments_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_old.py").write_text("import verifiers as vf\ndef load_environment() -> vf.Environment: ...\n")
    (tmp_path / "dies.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path, parameters, reason in [
        ("nothing", {}, "no package of that name is installed"),
        ("of_old", {}, "it was written for verifiers before 0.4"),
        ("dies", {}, "its process died with exit code 3"),
        ("reversed_words", {"wrds": 3}, "wrds: Extra inputs are not permitted"),
        ("reversed_words", {"select": {"limt": 3}}, "select.limt: Extra inputs are not permitted"),
        ("guess_a_number", {}, "it has tasks without end: say how many with data.parameters.select.limit"),
    ]:
        with pytest.raises(UserError, match=rf"data\.path verifiers:{path}:? .*{reason}"):
            read(f"verifiers:{path}", **parameters)
    assert "dies" not in sys.modules and "reversed_words" not in sys.modules, "their code stays out of this process"
