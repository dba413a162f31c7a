"""Problems whose answers are no mathematics: golds that need other columns, options in the prompt, no golds at all."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Columns, Data
from openrs_ray.config.rewards import Rewards
from openrs_ray.data.problems import Loaded, load_problems
from openrs_ray.errors import UserError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.rewards.answers import kinds

ROWS: list[dict[str, Any]] = [
    {"problem": "1", "choices": ["3", "4"], "answer": "B", "unit": "m"},
    {"problem": "2", "choices": ["5", "6"], "answer": "5", "unit": "m"},
    {"problem": "3", "choices": ["7", "8"], "answer": "9", "unit": ""},
    {"problem": "4", "choices": ["7"], "answer": "A", "unit": ""},
]


def load(file: Path, answer: Answer, **data: Any) -> Loaded:
    given = Data(path=str(file), max_unparseable_share=0.9, **data)
    return load_problems(given, make_tokenizer(), 100, kinds.parseable(answer, Rewards()), answer=answer)


def jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_golds_are_letters_or_texts_of_their_own_options(tmp_path: Path) -> None:
    loaded = load(jsonl(tmp_path, ROWS), Answer(kind="choice", choices="choices"))
    assert [(p.text, p.gold) for p in loaded.problems] == [("1", ("B",)), ("2", ("5",))]
    assert loaded.report.unparseable == 2  # a text that is no option, and too few options
    assert loaded.problems[1].row["choices"] == ["5", "6"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_options_are_shown_below_the_problem(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:2]), file)
    else:
        file.write_text('problem,choices,answer\n1,"[""3"", ""4""]",B\n2,"[""5"", ""6""]",5\n')
    loaded = load(file, Answer(kind="choice", choices="choices", show_choices=True), suffix="=")
    assert [p.text for p in loaded.problems] == ["1\n\nA) 3\nB) 4", "2\n\nA) 5\nB) 6"]


def test_options_follow_the_last_turn_of_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    file = jsonl(tmp_path, [ROWS[0] | {"problem": turns}])
    loaded = load(file, Answer(kind="choice", choices="choices", show_choices=True))
    assert loaded.problems[0].text == "1\n\n2\n\n3\n\nA) 3\nB) 4"


def test_numbers_strings_and_sets_need_a_gold_that_can_be_read(tmp_path: Path) -> None:
    rows = [{"problem": "1", "answer": gold, "unit": "m"} for gold in ("4", "4 m", "four", None, [2, 3])]
    file = jsonl(tmp_path, rows)
    assert [p.gold for p in load(file, Answer(kind="number", unit_column="unit")).problems] == [
        ("4",),
        ("4 m",),
        ("2", "3"),
    ]
    assert len(load(file, Answer(kind="exact")).problems) == len(load(file, Answer(kind="set")).problems) == 4


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    file = jsonl(tmp_path, ROWS)
    with pytest.raises(UserError, match=r"row 1 of .* has no column 'options' .*: set answer.choices"):
        load(file, Answer(kind="choice", choices="options"))
    with pytest.raises(UserError, match=r"has no column 'error' .*: set answer.tolerance_column"):
        load(file, Answer(kind="number", tolerance_column="error"))


def test_without_anything_to_check_no_gold_is_needed(tmp_path: Path) -> None:
    file = jsonl(tmp_path, [{"problem": "1"}, {"problem": "2"}])
    assert [(p.text, p.gold) for p in load(file, Answer(kind="none")).problems] == [("1", ()), ("2", ())]
    with pytest.raises(UserError, match="has no column 'answer'"):
        load(file, Answer(kind="exact"))
    kept = load(jsonl(tmp_path, ROWS), Answer(kind="none"), columns=Columns(answer="unit"))
    assert [p.gold for p in kept.problems] == [("m",), ("m",), (), ()]
