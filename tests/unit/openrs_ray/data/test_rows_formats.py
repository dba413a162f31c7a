"""Data as people have it: structs and JSON text under dotted columns, chat messages, CSV, folders of files, compressed lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tiny import make_config
from transformers import Qwen2Tokenizer

from openrs_ray.config.data import Columns, Data, Example
from openrs_ray.curation.inputs import load_inputs
from openrs_ray.curation.recipe import Recipe
from openrs_ray.data.columns import cell
from openrs_ray.data.problems import Loaded, load_problems
from openrs_ray.data.rows import Row, read_rows
from openrs_ray.errors import UserError
from openrs_ray.evaluation.benchmarks import Benchmark, Prompt, load_tasks
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.preparation.prepared import prepare
from openrs_ray.rewards.golds import parseable_golds

ROWS = [{"problem": f"{n}+{n}", "answer": str(2 * n)} for n in range(1, 5)]


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return make_tokenizer()


def as_parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def as_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def load(path: Path, tokenizer: Qwen2Tokenizer, **data: Any) -> Loaded:
    return load_problems(Data(path=str(path), **data), tokenizer, 200, parseable_golds)


# Dotted columns and chat messages


def verl_row(n: int) -> dict[str, Any]:
    """A row as verl's preprocessing scripts write it."""
    return {
        "data_source": "sums",
        "prompt": [{"role": "system", "content": "12;"}, {"role": "user", "content": f"{n}+{n}="}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(2 * n)},
        "extra_info": {"split": "train", "index": n},
    }


@pytest.mark.parametrize("form", ["parquet", "jsonl", "JSON text"])
def test_verl_s_layout_loads_as_it_is(tmp_path: Path, tokenizer: Qwen2Tokenizer, form: str) -> None:
    rows = [verl_row(n) for n in range(1, 5)]
    if form == "JSON text":  # as a CSV or a database hands structs on
        rows = [{name: json.dumps(value) for name, value in row.items()} for row in rows]
    path = as_lines(tmp_path / "data.jsonl", rows) if form == "jsonl" else as_parquet(tmp_path / "data.parquet", rows)
    loaded = load(path, tokenizer, columns=Columns(problem="prompt", answer="reward_model.ground_truth"))
    assert [(p.text, p.gold) for p in loaded.problems] == [(f"{n}+{n}=", (str(2 * n),)) for n in range(1, 5)]
    assert tokenizer.decode(loaded.problems[0].prompt_ids) == "<|system|>12;<|user|>1+1=<|assistant|>"


def test_system_prompt_examples_and_suffix_go_around_the_messages(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    turns = [("user", "1+1"), ("assistant", "2"), ("user", "2+2")]
    messages = [{"role": role, "content": content} for role, content in turns]
    path = as_lines(tmp_path / "data.jsonl", [{"problem": messages, "answer": 4}])
    data = {"system_prompt": "0", "examples": (Example(problem="3+3", response="6"),), "suffix": "="}
    (problem,) = load(path, tokenizer, **data).problems
    assert tokenizer.decode(problem.prompt_ids) == (
        "<|system|>0<|user|>3+3=<|assistant|>6<|end|><|user|>1+1<|assistant|>2<|end|><|user|>2+2=<|assistant|>"
    )
    assert problem.text == "1+1\n\n2\n\n2+2"  # the same last turn after another beginning is another problem


USER = {"role": "user", "content": "1+1"}


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            7,
            r"row 2 of .* has no text in column 'problem': a problem is text or a list of chat messages, not int \(7\)",
        ),
        (None, "row 2 of .* has no text in column 'problem'"),
        (["1+1"], r"a chat message has role and content, but message 1 is str \('1\+1'\)"),
        ([{"from": "human", "value": "1+1"}], "a chat message has role and content, but message 1 is a struct"),
        ([USER, {"role": "assistant", "content": "2"}], "must end with a user turn"),
        ([], "must end with a user turn"),
        ([{"role": "tool", "content": "1"}, USER], "message 1 has the role 'tool'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the content of message 1 must be text, not a list"),
        ([{"role": "user", "content": " "}], "row 2 of .* has no text in column 'problem'"),
        (
            [{"role": "system", "content": "3"}, USER],
            r"row 2 of .* has a system message of its own: leave out data\.sys",
        ),
    ],
)
def test_messages_that_are_none_name_row_and_column(
    tmp_path: Path, tokenizer: Qwen2Tokenizer, problem: Any, said: str
) -> None:
    path = as_lines(tmp_path / "data.jsonl", [ROWS[0], {"problem": problem, "answer": "2"}])
    with pytest.raises(UserError, match=said) as error:
        load(path, tokenizer, system_prompt="0")
    assert "\n" not in str(error.value) and "row 2" in str(error.value)


def test_a_dot_leads_into_structs_and_a_name_with_a_dot_comes_first() -> None:
    row: Row = {"a": {"b": {"c": 1}, "b.c": 2}, "a.b": {"c": 3}, "text": '{"x": {"y": [4]}}', "none": None}
    assert [cell(row, name) for name in ("a.b.c", "a", "text.x.y", "none", "none.x")] == [
        *(3, row["a"], [4], None, None)
    ]
    assert cell({"a": row["a"]}, "a.b.c") == 2


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("truth", r"row 2 of .* has no column 'truth' \(it has: problem, gold, note\): set data\.columns\.answer"),
        ("gold.value", r"row 2 of .* has no column 'gold\.value' in gold \(it has: style\): set data\.columns\.answer"),
        ("problem.value", r"row 1 of .*, column 'problem\.value': .* text that is no JSON object \(str \('1\+1'\)\)"),
        ("note.value", r"row 1 of .*, column 'note\.value': there is no 'value' in int \(3\)"),
    ],
)
def test_a_dotted_column_that_leads_nowhere(tmp_path: Path, tokenizer: Qwen2Tokenizer, column: str, said: str) -> None:
    rows = [
        {"problem": "1+1", "gold": {"value": "2"}, "note": 3, **({"truth": "2"} if column == "truth" else {})},
        {"problem": "2+2", "gold": {"style": "rule"}, "note": 3},
    ]
    with pytest.raises(UserError, match=said) as error:
        load(as_lines(tmp_path / "data.jsonl", rows), tokenizer, columns=Columns(answer=column))
    assert "\n" not in str(error.value)


def test_a_gold_that_is_null_under_a_dot_is_a_missing_one(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    rows = [{"problem": row["problem"], "gold": {"value": row["answer"]}} for row in ROWS]
    path = as_parquet(tmp_path / "data.parquet", [*rows, {"problem": "7+7", "gold": None}])
    loaded = load(path, tokenizer, columns=Columns(answer="gold.value"), max_unparseable_share=0.2)
    assert (loaded.report.kept, loaded.report.unparseable) == (4, 1)


# CSV


def test_csv_holds_text_as_it_was_written(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    content = 'id,problem,answer\r\n1,"1,000+1",007\r\n\r\n2,"1+\n1",True\r\n3,"a ""b""",1e5\r\n'
    for name, text in (("data.csv", content), ("bom.csv", "\ufeff" + content)):
        (tmp_path / name).write_bytes(text.encode())
        assert read_rows(str(tmp_path / name), "train") == [
            {"id": "1", "problem": "1,000+1", "answer": "007"},
            {"id": "2", "problem": "1+\n1", "answer": "True"},
            {"id": "3", "problem": 'a "b"', "answer": "1e5"},
        ]
    (tmp_path / "data.tsv").write_text(f"problem\tanswer\n1+1, no?\t2\n{'9' * 200_000}\t3\n")
    tabs = read_rows(str(tmp_path / "data.tsv"), "train")
    assert [(len(row["problem"]), row["answer"]) for row in tabs] == [(8, "2"), (200_000, "3")]
    loaded = load(tmp_path / "data.csv", tokenizer, columns=Columns(answer="id"))
    assert [problem.gold for problem in loaded.problems] == [("1",), ("2",), ("3",)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"problem,answer\n1+1,2\n1,000+1,1001\n",
            r"line 3 of .*data\.csv ends a row of 3 cells, but the header has 2",
        ),
        (b"problem,answer\n1+1\n", "line 2 of .* ends a row of 1 cells"),
        (b'problem,answer\n"1+1,2\n', r"line 2 of .*data\.csv is not valid CSV: unexpected end of data"),
        (b"problem,answer,answer\n1,2,3\n", r"header of .*data\.csv names the column 'answer' twice"),
        (b"problem,answer\n\xff,2\n", r"cannot read .*data\.csv as text in UTF-8"),
        (
            b"problem;answer\n1;2\n",
            r"has no column 'problem' \(its only column is 'problem;answer': cells of a .csv are separated by commas",
        ),
        (b"problem,answer\n", "holds no problems"),
        (b"", "holds no problems"),
    ],
)
def test_a_bad_csv_is_one_sentence(tmp_path: Path, tokenizer: Qwen2Tokenizer, content: bytes, said: str) -> None:
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        load(tmp_path / "data.csv", tokenizer)
    assert "\n" not in str(error.value)


# Folders and compressed lines


def test_a_folder_of_files_of_one_form_is_one_data_set(tmp_path: Path) -> None:
    for name, suffix, write in (
        ("parts", ".parquet", as_parquet),
        ("spark.parquet", ".parquet", as_parquet),  # Spark names its folders so
        ("lines", ".jsonl", as_lines),
    ):
        for number in (1, 0):
            write(tmp_path / name / f"part-{number}{suffix}", ROWS[2 * number : 2 * number + 2])
        (tmp_path / name / "_SUCCESS").touch()
        (tmp_path / name / f".part-0{suffix}").write_text("half a download")
        assert read_rows(str(tmp_path / name), "train") == ROWS


def test_what_is_about_the_data_is_none_of_it(tmp_path: Path) -> None:
    as_parquet(tmp_path / "part.parquet", ROWS)
    for name in ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", ".gitattributes"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nThese are sums.\n")
    assert read_rows(str(tmp_path), "train") == ROWS


def test_compressed_lines_in_a_folder(tmp_path: Path) -> None:
    for number in (1, 0):
        lines = "".join(json.dumps(row) + "\n" for row in ROWS[2 * number : 2 * number + 2])
        (tmp_path / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_rows(str(tmp_path), "train") == ROWS
    as_lines(tmp_path / "part-0.jsonl", ROWS)
    with pytest.raises(UserError, match=r"several forms \(part-0\.jsonl, part-1\.jsonl\.gz\): name one"):
        read_rows(str(tmp_path), "train")


def test_a_folder_of_splits_is_read_as_on_the_hub(tmp_path: Path) -> None:
    as_parquet(tmp_path / "train-00000-of-00001.parquet", ROWS[:3])
    as_parquet(tmp_path / "test-00000-of-00001.parquet", ROWS[3:])
    assert read_rows(str(tmp_path), "train") == ROWS[:3]
    assert read_rows(str(tmp_path), "test") == ROWS[3:]


def test_a_folder_that_is_no_data_set_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data set '.*empty' from the folder") as error:
        read_rows(str(tmp_path / "empty"), "train")
    assert "\n" not in str(error.value)
    as_parquet(tmp_path / "mixed" / "a.parquet", ROWS)
    as_lines(tmp_path / "mixed" / "b.jsonl", ROWS)
    with pytest.raises(UserError, match=r"files of several forms \(a\.parquet, b\.jsonl\): name one"):
        read_rows(str(tmp_path / "mixed"), "train")
    as_parquet(tmp_path / "broken" / "a.parquet", ROWS)
    (tmp_path / "broken" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read .*broken/b\.parquet as Parquet"):
        read_rows(str(tmp_path / "broken"), "train")


def test_compressed_lines(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    file.write_bytes(whole)
    assert read_rows(str(file), "train") == ROWS
    for spoiled in (whole[:-12], whole[:20] + bytes(8) + whole[28:], b"plain"):
        file.write_bytes(spoiled)
        with pytest.raises(UserError, match=r"cannot unpack .*data\.jsonl\.gz") as error:
            read_rows(str(file), "train")
        assert "\n" not in str(error.value)


# The other readers of problems and golds


def test_benchmarks_take_one_user_turn_and_no_conversation(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    benchmark = Benchmark("own", "own", str(as_lines(tmp_path / "own.jsonl", [{"problem": [USER], "answer": 2}])))
    (task,) = load_tasks(benchmark, Prompt("own", "9{problem}"), tokenizer)
    assert tokenizer.decode(task.problem.prompt_ids) == "<|user|>91+1<|assistant|>"
    as_lines(tmp_path / "own.jsonl", [{"problem": verl_row(1)["prompt"], "answer": 2}])
    with pytest.raises(UserError, match=r"row 1 of benchmark own .*not a conversation of 2 messages"):
        load_tasks(benchmark, Prompt("own"), tokenizer)


def test_a_curation_reads_the_same_cells(tmp_path: Path) -> None:
    rows = [{"question": [USER], "reward_model": {"ground_truth": value}} for value in ("2", None, 2.0)]
    columns = {"problem": "question", "answer": "reward_model.ground_truth"}

    def candidates(rows: list[dict[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
        source = {"path": str(as_lines(tmp_path / "own.jsonl", rows)), "columns": columns}
        recipe = {
            "name": "own",
            "folder": str(tmp_path),
            "sources": {"own": source},
            "stages": {"d": {"kind": "duplicates"}},
        }
        return [(one.problem, one.answer) for one in load_inputs(Recipe.model_validate(recipe)).candidates]

    assert candidates(rows) == [("1+1", ("2",)), ("1+1", ()), ("1+1", ("2",))]
    with pytest.raises(
        UserError, match=r"sources\.own: row 1 of .*, column 'reward_model\.ground_truth': an answer is"
    ):
        candidates([{"question": "1+1", "reward_model": {"ground_truth": True}}])
    with pytest.raises(
        UserError, match=r"sources\.own: row 1 of .* in reward_model .*: set sources\.own\.columns\.answer"
    ):
        candidates([{"question": "1+1", "reward_model": {"truth": "2"}}])
    with pytest.raises(UserError, match=r"sources\.own: row 1 of .*, column 'question': only one user turn"):
        candidates([{"question": verl_row(1)["prompt"], "reward_model": {"ground_truth": "2"}}])


def test_a_missing_data_file_is_said_before_a_model_is_looked_for(tmp_path: Path) -> None:
    config = make_config(tmp_path, data={"path": str(tmp_path / "gone.jsonl")}, model={"path": "owner/name"})
    with pytest.raises(UserError, match=r"no data file at .*gone\.jsonl"):
        prepare(config)
