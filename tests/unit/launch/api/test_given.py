"""Rows, functions and settings as files, read again by what reads them in a run."""

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from places import PYTHONPATH

from launch.api.given import function_file, recipe_file, rows_file
from openrs_ray.config.load import load_config
from openrs_ray.data.rows import read_rows
from openrs_ray.errors import UserError
from openrs_ray.user_code.reference import UserCode

ROWS = [{"problem": "1 + 1", "answer": 2, "tags": ["easy", "ünï"]}, {"problem": "2 + 2", "answer": 4, "tags": []}]
RUN = {"name": "mine", "steps": 3}


def test_rows_come_back_as_they_were_given_whatever_table_held_them(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    tables = [ROWS, pyarrow.Table.from_pylist(ROWS), pandas.DataFrame(ROWS), ({**row} for row in ROWS)]
    files = {rows_file(table, tmp_path) for table in tables}
    assert len(files) == 1, "the same content is the same file"
    assert read_rows(str(files.pop()), "train") == ROWS
    with_numpy = [{"problem": "x", "answer": np.int64(3), "vector": np.array([1.5, 2.0])}]
    assert read_rows(str(rows_file(with_numpy, tmp_path)), "train") == [
        {"problem": "x", "answer": 3, "vector": [1.5, 2.0]}
    ]
    missing = pandas.DataFrame({"problem": ["a", "b"], "hint": [1.0, float("nan")]})
    assert [row["hint"] for row in read_rows(str(rows_file(missing, tmp_path)), "train")] == [1.0, None]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "data has no rows"),
        ("toy.jsonl", "not str"),
        (3, "not int"),
        ([{"problem": "a"}, "b"], "row 2 of data is str"),
        ([{"problem": object()}], "row 1 of data cannot be written as JSON: object is neither"),
        (
            [{"problem": "a", "level": [float("nan")]}],
            "row 1 of data cannot .*NaN or infinity in column 'level'; give None",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_named(rows: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        rows_file(rows, tmp_path)


def test_the_first_run_of_a_machine_needs_no_folder(tmp_path: Path) -> None:
    file = recipe_file("quickstart", {"run": RUN}, tmp_path / "runs" / "given")
    assert load_config(file, []).run.steps == RUN["steps"]


def test_settings_go_over_the_recipe_and_the_same_ones_are_the_same_file(tmp_path: Path) -> None:
    def mine(completion: str) -> float:
        return float(len(completion))

    sections = {
        "run": RUN | {"folder": tmp_path},
        "data": ROWS,
        "rewards": {"accuracy": 2.0, "mine": (mine, 0.5)},
        "rollout": {"staleness": 1},
    }
    file = recipe_file("quickstart", sections, tmp_path)
    content = json.loads(file.read_text())
    own = next(name for name in content["rewards"]["weights"] if name.endswith(".py:mine"))
    assert content["rewards"]["weights"] == {"accuracy": 2.0, own: 0.5}
    assert recipe_file("quickstart", sections, tmp_path) == file
    del sections["rewards"]
    config = load_config(recipe_file("quickstart", sections, tmp_path), [])
    base = load_config("quickstart", [])
    assert (config.run.steps, config.run.path) == (3, tmp_path / "mine")
    assert config.rollout == base.rollout.model_copy(update={"staleness": 1})
    assert read_rows(config.tasks[0].data.path, "train") == ROWS


def test_all_of_a_recipe_may_be_given(tmp_path: Path) -> None:
    recipe = {
        "run": RUN,
        "model": {"path": "toy", "dtype": "float32"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 24},
    }
    config = load_config(recipe_file(recipe, {"run": {"name": "other"}}, tmp_path), [])
    assert (config.run.name, config.run.steps, config.model.path) == ("other", 3, "toy")


def test_a_function_is_itself_again_where_its_file_is_run(tmp_path: Path) -> None:
    limit = 3

    def brevity(completion: str, *, scale: float = 2.0) -> float:
        return scale * (len(completion) < limit)

    file, _, name = function_file("brief", brevity, tmp_path).rpartition(":")
    names: dict[str, Any] = {}
    exec(Path(file).read_text(), names)
    assert name == "brief" and names["brief"]("ab") == 2.0 and names["brief"]("abc") == 0.0


LOOSE = """
from beside import weight

def brevity(completion):
    return weight() * len(completion)

def made():
    def brevity(completion):
        return weight()
    return brevity

inner = made()
"""


def test_a_function_of_a_file_of_its_own_is_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled, it would be no more than its module's name, which no other process can import."""
    (tmp_path / "loose_rewards.py").write_text(LOOSE)
    (tmp_path / "beside.py").write_text("def weight(): return 2.0")
    monkeypatch.syspath_prepend(tmp_path)
    loose = importlib.import_module("loose_rewards")
    given = tmp_path / "given"
    assert function_file("brevity", loose.brevity, given) == f"{tmp_path / 'loose_rewards.py'}:brevity"
    assert not given.exists()
    assert UserCode.read(function_file("brevity", loose.brevity, given), []).name == "brevity"
    for function, expected in ((loose.brevity, "4.0"), (loose.inner, "2.0")):
        file, _, name = function_file("other", function, given).rpartition(":")
        code = f"names = {{}}; exec(open({file!r}).read(), names); print(names[{name!r}]('ab'))"
        beside = os.environ | {"PYTHONPATH": os.pathsep.join([PYTHONPATH, str(tmp_path)])}
        (tmp_path / "loose_rewards.py").rename(tmp_path / "gone.py")
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=beside)
        (tmp_path / "gone.py").rename(tmp_path / "loose_rewards.py")
        assert run.stdout.strip() == expected, run.stderr
    assert function_file("basename", os.path.basename, given).startswith(str(given)), "every Python has that module"


def test_a_function_that_cannot_be_pickled_is_answered_with_the_way_out(tmp_path: Path) -> None:
    lock = threading.Lock()

    def mine(completion: str) -> float:
        with lock:
            return 1.0

    with pytest.raises(UserError, match=r"the reward mine cannot be sent .* put it into a file .* my_rewards.py:mine"):
        function_file("mine", mine, tmp_path)
    with pytest.raises(UserError, match="must be one of Python's"):
        function_file("my reward", len, tmp_path)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"rewards": {"mine": (len, 0.5, 3)}},
            "rewards cannot be written as JSON: builtin.* is neither .*function, weight",
        ),
        ({"rewards": {"mine": (0.5, len)}}, "rewards cannot be written as JSON"),
        ({"environment": dict}, "environment cannot be written as JSON: type is .* a class as FILE.py:NAME"),
    ],
)
def test_objects_without_a_place_in_a_recipe_are_named(sections: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        recipe_file("quickstart", sections, tmp_path)
