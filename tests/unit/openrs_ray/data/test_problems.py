"""Problems from files: columns, answers, prompts, what is left out and counted; and the order of drawing."""

import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from places import ROOT
from transformers import Qwen2Tokenizer

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Columns, Data, Example
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import Model
from openrs_ray.data import prompts
from openrs_ray.data.answers import gold_answers, whole_cell
from openrs_ray.data.columns import CellError
from openrs_ray.data.completions import response_prefix
from openrs_ray.data.order import Order
from openrs_ray.data.problems import Loaded, hold_out, load_problems
from openrs_ray.data.prompts import load_tokenizer
from openrs_ray.data.rows import read_rows
from openrs_ray.errors import UserError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Problem
from openrs_ray.rewards.golds import parseable_golds

SHARED = Path(os.environ.get("OPENRS_SHARED", Path(__file__).parents[5] / "shared"))
FOLDER = ROOT / "launch" / "recipes"
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("*-data.yaml")))  # without those of launch.curate
ROWS: list[dict[str, Any]] = [{"problem": f"{n}+{n}", "answer": str(2 * n), "note": "x"} for n in range(1, 6)]


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return make_tokenizer()


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return file


def load(path: Path | str, tokenizer: Qwen2Tokenizer, limit: int = 100, **data: Any) -> Loaded:
    return load_problems(Data(path=str(path), **data), tokenizer, limit, parseable_golds)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_every_file_form_gives_the_same_problems(tmp_path: Path, tokenizer: Qwen2Tokenizer, suffix: str) -> None:
    loaded = load(write(tmp_path / f"data{suffix}", ROWS), tokenizer)
    assert [(p.index, p.text, p.gold) for p in loaded.problems] == [
        (0, "1+1", ("2",)),
        (1, "2+2", ("4",)),
        (2, "3+3", ("6",)),
        (3, "4+4", ("8",)),
        (4, "5+5", ("10",)),
    ]
    assert tokenizer.decode(loaded.problems[0].prompt_ids) == "<|user|>1+1<|assistant|>"


def test_a_prompt_is_system_line_worked_examples_and_problem(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    loaded = load(
        write(tmp_path / "data.jsonl", ROWS[:1]),
        tokenizer,
        system_prompt="12",
        examples=(Example(problem="3+4", response="<think>3+4=7</think>\\boxed{7}"),),
        suffix="=",
    )
    assert tokenizer.decode(loaded.problems[0].prompt_ids) == (
        "<|system|>12<|user|>3+4=<|assistant|><think>3+4=7</think>\\boxed{7}<|end|><|user|>1+1=<|assistant|>"
    )
    assert loaded.problems[0].text == "1+1"


def test_a_long_prompt_is_dropped_whole_and_counted(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    path = write(tmp_path / "data.jsonl", [{"problem": "1+1" * n, "answer": "2"} for n in (1, 2, 3, 4)])
    loaded = load(path, tokenizer, limit=2 + 6)  # two role tokens and six characters
    assert [p.text for p in loaded.problems] == ["1+1", "1+11+1"]
    assert (loaded.report.rows, loaded.report.kept, loaded.report.too_long) == (4, 2, 2)
    assert loaded.report.longest_prompt == 8
    with pytest.raises(UserError, match=r"none of the 4 problems.*4 prompts are longer than.*3"):
        load(path, tokenizer, limit=3)


@pytest.mark.parametrize(
    ("cell", "after", "gold"),
    [
        ("72", None, ("72",)),
        (72, None, ("72",)),
        (27.0, None, ("27",)),
        (0.5, None, ("0.5",)),
        (12345678901234567890, None, ("12345678901234567890",)),
        (["1", 2.0, None, ""], None, ("1", "2")),
        (Decimal("72.500"), None, ("72.5",)),
        (Decimal("72.00"), None, ("72",)),
        (Decimal("12345678901234567890123456789012.10"), None, ("12345678901234567890123456789012.1",)),
        ('["34", "35"]', None, ("34", "35")),  # as Skywork-OR1 and others write them
        ("[1, 2]", None, ("[1, 2]",)),  # an interval
        ("48/2 = 24\n#### 1 #### 72 ", "####", ("72",)),
        ("no marker 72", "####", ()),
        (r"So \boxed{1}, no: \boxed{\frac{1}{2}} it is.", None, (r"\frac{1}{2}",)),
        (r"\frac{1}{2}", None, (r"\frac{1}{2}",)),
        (None, None, ()),
        ([], None, ()),
    ],
)
def test_gold_answers(cell: Any, after: str | None, gold: tuple[str, ...]) -> None:
    assert gold_answers(cell, after) == gold


NO_GOLDS: list[tuple[Any, str]] = [
    (b"12", r"bytes \(b'12'\)"),
    ([b"12"], r"bytes \(b'12'\)"),
    ({"value": "12"}, r"a struct \(\{'value': '12'\}\)"),
    ([["1"], ["2"]], r"a list \(\['1'\]\)"),
    (True, r"a truth value \(True\)"),
    (float("nan"), r"float \(nan\)"),
    (float("-inf"), r"float \(-inf\)"),
    (Decimal("NaN"), r"Decimal \(Decimal\('NaN'\)\)"),
    (date(2024, 5, 1), r"date \(datetime.date\(2024, 5, 1\)\)"),
]


@pytest.mark.parametrize(("value", "said"), NO_GOLDS)
@pytest.mark.parametrize("read", [gold_answers, whole_cell])
def test_what_is_no_answer_is_an_error_of_its_type(read: Callable[[Any], Any], value: Any, said: str) -> None:
    with pytest.raises(CellError, match=rf"an answer is text.* not {said}$"):
        read(value)


@pytest.mark.parametrize(
    "value", [b"12", {"value": "12"}, [["1"], ["2"]], True, float("nan"), date(2024, 5, 1)], ids=repr
)
def test_a_gold_of_another_type_names_row_and_column(tmp_path: Path, tokenizer: Qwen2Tokenizer, value: Any) -> None:
    """The bytes b"12" once became the accepted answers 49 and 50."""
    rows = [{"problem": "1+1", "answer": None}, {"problem": "6+6", "answer": value}]
    path = write(tmp_path / "data.parquet", rows)
    for whole in (False, True):
        with pytest.raises(UserError, match=r"row 2 of .*data\.parquet, column 'answer': an answer is text") as error:
            load_problems(Data(path=str(path)), tokenizer, 100, lambda golds: [True] * len(golds), whole)
        assert "\n" not in str(error.value)


def test_numbers_in_parquet_are_the_numbers_that_were_written(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    file = tmp_path / "data.parquet"
    texts = ["1", "2", "3"]
    for kind, values, golds in (
        (pyarrow.float32(), [0.1, 72.0, None], [("0.1",), ("72",)]),
        (pyarrow.list_(pyarrow.float32()), [[0.1, 0.2], [72.0], []], [("0.1", "0.2"), ("72",)]),
        (pyarrow.decimal128(10, 3), [Decimal("0.100"), Decimal(72), None], [("0.1",), ("72",)]),
        (pyarrow.int16(), [1, 72, None], [("1",), ("72",)]),
    ):
        pyarrow.parquet.write_table(pyarrow.table({"problem": texts, "answer": pyarrow.array(values, kind)}), file)
        loaded = load(file, tokenizer, max_unparseable_share=0.5)
        assert [problem.gold for problem in loaded.problems] == golds
    nested = pyarrow.array([{"gold": 0.1}, None, {"gold": 72}], pyarrow.struct([("gold", pyarrow.float32())]))
    pyarrow.parquet.write_table(pyarrow.table({"problem": texts, "answer": nested, "other": nested}), file)
    loaded = load(file, tokenizer, max_unparseable_share=0.5, columns=Columns(answer="other.gold"))
    assert [problem.gold for problem in loaded.problems] == [("0.1",), ("72",)]


def test_unparseable_golds_are_dropped_and_counted_up_to_a_share(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    rows = [*ROWS, {"problem": "6+6", "answer": None}, {"problem": "7+7", "answer": "14"}]
    path = write(tmp_path / "data.jsonl", rows)
    loaded = load(path, tokenizer, max_unparseable_share=0.2)
    assert [p.text for p in loaded.problems] == ["1+1", "2+2", "3+3", "4+4", "5+5", "7+7"]
    assert [p.index for p in loaded.problems] == list(range(6))
    assert loaded.report.unparseable == 1
    with pytest.raises(UserError, match=r"1 of 7 gold answers.*row 6: None"):
        load(path, tokenizer)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.jsonl", '{"problem": "1", "answer": "1"}\n{"problem": "2", ', "line 2 of .* is not valid JSON"),
        ("data.jsonl", '{"problem": "1", "answer": "1"}\n[1, 2]', "line 2 of .* is not a JSON object"),
        ("data.jsonl", "", "holds no problems"),
        ("data.json", "{", "data.json is not valid JSON"),
        ("data.json", '{"problem": "1"}', "must hold a JSON list"),
        ("data.parquet", "PAR1 this is not", "cannot read .* as Parquet"),
        ("data.jsonl", '{"question": "1", "final": "1"}', r"no column 'problem' \(it has: question, final\)"),
        ("data.jsonl", '{"problem": "1", "final": "1"}', r"no column 'answer'.*set data\.columns\.answer"),
        ("data.jsonl", '{"problem": " ", "answer": "1"}', "row 1 of .* has no text in column 'problem'"),
    ],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, tokenizer: Qwen2Tokenizer, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / name, tokenizer)
    assert "\n" not in str(error.value)


def test_data_that_is_not_there_is_named(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    with pytest.raises(UserError, match=r"no data file at .*missing.jsonl"):
        load(tmp_path / "missing.jsonl", tokenizer)
    with pytest.raises(UserError, match=r"cannot read data from 'nothing'"):
        load("nothing", tokenizer)


def test_the_chat_template_file_wins_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "with")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "without")
    for folder in ("with", "without"):
        (tmp_path / folder / "config.json").write_text('{"model_type": "qwen2"}')
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}={% endfor %}<think>")
    with pytest.raises(UserError, match=r"no chat template: set model.chat_template"):
        load_tokenizer(Model(path=str(tmp_path / "without")))
    for folder in ("with", "without"):
        chosen = load_tokenizer(Model(path=str(tmp_path / folder), chat_template=file))
        (ids,) = prompts.tokenize_prompts(Data(path="x"), ["1+1"], chosen)
        assert chosen.decode(ids) == "1+1=<think>"
        assert response_prefix(ids, chosen) == "<think>"
    own = load_tokenizer(Model(path=str(tmp_path / "with")))
    (ids,) = prompts.tokenize_prompts(Data(path="x"), ["1+1"], own)
    assert response_prefix(ids, own) == ""
    with pytest.raises(UserError, match=r"cannot read model.chat_template"):
        load_tokenizer(Model(path=str(tmp_path / "with"), chat_template=tmp_path / "none.jinja"))
    file.write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(UserError, match=r"does not take this conversation: no system role"):
        refusing = load_tokenizer(Model(path=str(tmp_path / "with"), chat_template=file))
        prompts.tokenize_prompts(Data(path="x"), ["1+1"], refusing)


def test_the_built_in_problems_are_disjoint_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Qwen2Tokenizer
) -> None:
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))
    train, heldout = (load(name, tokenizer, limit=16) for name in ("toy", "toy-heldout"))
    for loaded in (train, heldout):
        assert loaded.report.kept == loaded.report.rows == 4096
        assert all(p.gold == (str(eval(p.text)),) for p in loaded.problems)
    assert not {p.text for p in train.problems} & {p.text for p in heldout.problems}


SPELLINGS = (
    "If $f({n}) = x$, find the area of \\left( x \\right).",
    "If  $ f( {n} )=x$,\n find the area of \\left(x\\right)",
    "IF $f({n})=x$ FIND THE AREA OF \\left(x\\right) .",
)


def test_held_out_problems_are_not_trained_on_in_any_spelling() -> None:
    texts = [
        SPELLINGS[n // 40].replace("{n}", str(n % 40)) for n in range(100)
    ]  # 40 different ones, in two or three spellings
    problems = [Problem(n, text, (n,), (str(n),)) for n, text in enumerate(texts)]
    train, held = hold_out(problems, 10, seed=42)
    numbers = {problem.prompt_ids[0] % 40 for problem in held}
    assert len(numbers) == len(held) == 10
    assert not numbers & {problem.prompt_ids[0] % 40 for problem in train}
    assert len(train) == sum(n % 40 not in numbers for n in range(100))
    for part in (train, held):
        assert [problem.index for problem in part] == list(range(len(part)))
        assert [problem.prompt_ids for problem in part] == sorted(problem.prompt_ids for problem in part)
    assert hold_out(problems, 10, seed=42) == (train, held) != hold_out(problems, 10, seed=43)
    assert hold_out(problems, 0, seed=42) == (tuple(problems), ())


def test_each_epoch_draws_every_problem_once_in_an_order_of_its_own() -> None:
    order = Order(seed=7, problems=50)
    drawn = order.draw(0, 150)
    epochs = [drawn[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(50))
    assert Order(seed=8, problems=50).draw(0, 50) != epochs[0]


def test_a_draw_depends_on_its_position_alone() -> None:
    whole = Order(seed=7, problems=50).draw(0, 130)
    pieces = [index for start in range(0, 130, 13) for index in Order(seed=7, problems=50).draw(start, 13)]
    assert pieces == whole
    assert Order(seed=7, problems=50).draw(97, 5) == whole[97:102]


def test_without_shuffling_the_order_is_the_file_s() -> None:
    assert Order(seed=7, problems=4, shuffle=False).draw(2, 6) == [2, 3, 0, 1, 2, 3]


def test_the_first_problem_of_an_epoch_is_anyone_s() -> None:
    firsts = Counter(Order(seed=seed, problems=4).index(0) for seed in range(400))
    assert all(60 < firsts[index] < 140 for index in range(4))  # 100 expected, standard deviation 8.7


# Programs


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tests_of_programs_are_read_whole_and_the_first_is_shown(
    tmp_path: Path, tokenizer: Qwen2Tokenizer, suffix: str
) -> None:
    """A list in the answer column is all of the tests; JSON is not looked through for a box."""
    tests = [r"assert f('\boxed{1}') == 1 ", "assert f(2)"]
    rows = [
        {"problem": "1+1", "answer": tests, "test_setup_code": ""},
        {
            "problem": [{"role": "user", "content": "2+2"}],
            "answer": ["def check(f): f(2)\ncheck(g)"],
            "test_setup_code": "",
        },
    ]
    file = write(tmp_path / f"data{suffix}", rows if suffix == ".jsonl" else rows[:1])
    answer = Answer(kind="code", shown_tests=1)
    loaded = load_problems(Data(path=str(file)), tokenizer, 200, lambda golds: [True] * len(golds), answer=answer)
    assert loaded.problems[0].gold == tuple(tests)
    shown = f"\n\nYour code should pass tests such as:\n```python\n{tests[0]}\n```"
    assert loaded.problems[0].text == "1+1" + shown
    assert [problem.text for problem in loaded.problems[1:]] == ["2+2"] * (suffix == ".jsonl")


def test_programs_with_broken_tests_are_left_out(tmp_path: Path, tokenizer: Qwen2Tokenizer) -> None:
    rows = [
        {"problem": "1+1", "answer": {"inputs": ["1"], "outputs": ["2"]}},
        {"problem": "2+2", "answer": "assert f("},
    ]
    answer = Answer(kind="code")
    data = Data(path=str(write(tmp_path / "data.jsonl", rows)), max_unparseable_share=0.5)
    loaded = load_problems(data, tokenizer, 200, lambda golds: [True] * len(golds), answer=answer)
    assert [problem.gold for problem in loaded.problems] == [('{"inputs": ["1"], "outputs": ["2"]}',)]
    assert loaded.report.unparseable == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(recipe: Path) -> None:
    load_config(recipe, [])


@pytest.mark.parametrize(
    ("file", "rows", "columns", "example"),
    [
        ("train/gsm8k_test.jsonl", 1319, {"problem": "question", "answer_after": "####"}, ("18",)),
        ("eval/minerva.jsonl", 272, {"answer": "solution"}, ("1.6",)),
        ("eval/olympiadbench.jsonl", 675, {"problem": "question", "answer": "final_answer"}, ("2",)),
        ("eval/math500.jsonl", 500, {}, (r"\left( 3, \frac{\pi}{2} \right)",)),
    ],
)
def test_real_data_loads(
    tokenizer: Qwen2Tokenizer, file: str, rows: int, columns: dict[str, str], example: tuple[str, ...]
) -> None:
    path = SHARED / "data" / file
    if not path.exists():
        pytest.skip(f"needs {path}")
    loaded = load_problems(
        Data(path=str(path), columns=Columns(**columns)),
        tokenizer,
        100_000,
        lambda golds: [bool(gold) for gold in golds],
    )
    assert loaded.report.rows == loaded.report.kept == rows
    assert loaded.problems[0].gold == example


def test_gsm8k_s_golds_are_all_whole_numbers(tokenizer: Qwen2Tokenizer) -> None:
    path = SHARED / "data" / "train" / "gsm8k_test.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}")
    loaded = load(path, tokenizer, limit=100_000, columns=Columns(problem="question", answer_after="####"))
    assert loaded.report.unparseable == 0
    assert all(gold.replace(",", "").removeprefix("-").isdigit() for p in loaded.problems for gold in p.gold)


def test_golds_are_read_within_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "+".join(rf"\frac{{y^{power}}}{{7}}" for power in range(2, 60))  # a tenth of a second to read
    golds = [("42",), (slow,), (), ("plain words",), ("plain words", slow)]
    assert parseable_golds(golds, processes=1) == [True, True, False, False, True]
    # What cannot be read in time is unparseable; a plain number needs no time.
    monkeypatch.setattr("openrs_ray.rewards.golds._DEADLINE_S", 1e-5)
    assert parseable_golds(golds, processes=1) == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("subset", "split", "expected"), [("main", "train", "2"), ("main", "test", "3"), ("other", "train", "4")]
)
def test_a_subset_and_a_split_of_a_hub_data_set(tmp_path: Path, subset: str, split: str, expected: str) -> None:
    """A folder laid out as on the Hub goes through the same loader as a Hub id."""
    for name, answer in {"main-train": "2", "main-test": "3", "other-train": "4"}.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"problem": "1 + 1", "answer": answer}) + "\n")
    files = {"main": {"train": "main-train.jsonl", "test": "main-test.jsonl"}, "other": {"train": "other-train.jsonl"}}
    configs = [
        {"config_name": name, "data_files": [{"split": s, "path": file} for s, file in parts.items()]}
        for name, parts in files.items()
    ]
    (tmp_path / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    assert [row["answer"] for row in read_rows(str(tmp_path), split, subset)] == [expected]


def test_a_hub_data_set_with_several_subsets_needs_one(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs: [{config_name: a, data_files: a.jsonl}, {config_name: b, data_files: b.jsonl}]\n---\n"
    )
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n')
    with pytest.raises(UserError, match=r"data\.subset.*Config name is missing"):
        read_rows(str(tmp_path), "train")
