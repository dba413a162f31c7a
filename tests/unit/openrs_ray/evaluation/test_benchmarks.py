"""Benchmarks of every shape, the checker on their golds, classes of answers, what is kept on disk, and the tables."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import math_verify
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shared_data import shared_file, shared_rows

from launch.evaluate import with_answers
from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.load import checked
from openrs_ray.errors import UserError
from openrs_ray.evaluation.analysis import analyse
from openrs_ray.evaluation.benchmarks import (
    KNOWN,
    PAPER_PROMPT,
    Benchmark,
    Prompt,
    Task,
    chosen,
    clusters,
    fingerprint,
    load_tasks,
)
from openrs_ray.evaluation.check import WARM_UP, Answered, Check, Rules
from openrs_ray.evaluation.config import EvaluationConfig
from openrs_ray.evaluation.figures import Samples
from openrs_ray.evaluation.majority import answer_classes
from openrs_ray.evaluation.power import Rate
from openrs_ray.evaluation.report import document, markdown, published, published_name, write
from openrs_ray.evaluation.store import SCHEMA, CompletionStore, Done, as_table
from openrs_ray.evaluation.subject import START
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion, Problem, Status, Verdict
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.pool import CheckPool

SIZES = {"aime24": 30, "amc23": 40, "math500": 500, "minerva": 272, "olympiadbench": 675}


@pytest.fixture(scope="module")
def pool() -> Iterator[CheckPool[Answered, Verdict]]:
    with CheckPool(Check("boxed"), 1, 5.0, 2.0, WARM_UP) as running:
        yield running


def shared_tasks(name: str) -> tuple[Task, ...]:
    (benchmark,) = chosen([name], {name: str(shared_file(f"eval/{name}.jsonl"))})
    return load_tasks(benchmark, Prompt("plain"), make_tokenizer())


def verdict(text: str, *gold: str, rules: Rules = "boxed", tolerance: float | None = None) -> Status:
    return Check(rules)(Answered(text, gold, tolerance)).status


# Shapes


def test_a_benchmark_as_the_page_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n{"question": "2+2", "answer": "4"}\n')
    monkeypatch.setitem(KNOWN, "known", Benchmark("known", "Known", str(file), "test", 2))
    for (benchmark,) in (chosen(["mine"], {"mine": str(file)}), chosen(["known"], {})):
        tasks = load_tasks(benchmark, Prompt("plain"), make_tokenizer())
        assert [(task.problem.text, task.problem.gold) for task in tasks] == [("1+1", ("2",)), ("2+2", ("4",))]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_every_gold_given_back_in_a_box_is_correct(name: str, size: int) -> None:
    tasks = shared_tasks(name)
    assert [task.problem.index for task in tasks] == list(range(size))
    # math-verify alone is right about 1,515 of all 1,517; here none may be left.
    for task in tasks:
        for gold in task.problem.gold:
            assert verdict(rf"so </think> It is \boxed{{{gold}}}.", *task.problem.gold) is Status.CORRECT, task


def values_of(answer: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    depth, parts = 0, [""]
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        parts = [*parts, ""] if character == "," and not depth else [*parts[:-1], parts[-1] + character]
    return parts


def test_several_values_of_one_answer_count_in_any_order_and_only_together() -> None:
    rows = shared_rows("eval/olympiadbench.jsonl")
    tasks = [task for task, row in zip(shared_tasks("olympiadbench"), rows, strict=True) if row["is_multiple_answer"]]
    assert len(tasks) == 94
    parts = [values_of(task.problem.gold[0]) for task in tasks]
    for task, values in zip(tasks, parts, strict=True):
        for joined in (", ".join(reversed(values)), r" \text{ and } ".join(values)):
            assert verdict(rf"\boxed{{{joined}}}", *task.problem.gold) is Status.CORRECT, (task.problem.gold, joined)
    accepted = [
        values
        for task, values in zip(tasks, parts, strict=True)
        if len(values) > 1 and verdict(rf"\boxed{{{','.join(values[:-1])}}}", *task.problem.gold) is Status.CORRECT
    ]
    assert all(len({*values}) < len(values) for values in accepted), "a set loses what stands in it twice, nothing else"
    assert len(accepted) <= 2


def test_shapes_of_local_files(tmp_path: Path) -> None:
    rows = [
        {"problem": "1+1", "answer": 2.0},
        {"question": "1+2", "final_answer": ["$1$,$2$"], "answer": "ignored", "error": "1e-1"},
        {"problem": "3+4", "solution": r"First \boxed{0}, then \boxed{7}."},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (own,) = chosen(["own"], {"own": str(tmp_path / "own.jsonl")})
    tokenizer = make_tokenizer()
    tasks = load_tasks(own, Prompt("plain"), tokenizer)
    assert [task.problem.gold for task in tasks] == [("2",), ("1,2",), ("7",)]
    assert [task.tolerance for task in tasks] == [None, 0.1, None]
    assert tokenizer.decode(tasks[0].problem.prompt_ids) == "<|user|>1+1<|assistant|>"
    asked = load_tasks(own, Prompt("run", "1{problem}", Data(path="x", system_prompt="9", suffix="=")), tokenizer)
    assert tokenizer.decode(asked[0].problem.prompt_ids) == "<|system|>9<|user|>11+1=<|assistant|>"
    assert fingerprint(tasks) == fingerprint(load_tasks(own, Prompt("plain"), tokenizer)) != fingerprint(asked)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "1+1"}, "row 1 .* final_answer or answer or solution"),
        ({"problem": "1+1", "answer": []}, "row 1 .* final_answer or answer or solution"),
        ({"answer": "2"}, "problem or question"),
        ({"problem": "1+1", "answer": True}, "row 1 .*, column 'answer': .* not a truth value"),
        ({"problem": "1+1", "answer": float("nan")}, "row 1 .*, column 'answer': .* not float .nan."),
        ({"problem": "1+1", "answer": {"value": 2}}, "row 1 .*, column 'answer': .* not a struct"),
        ({"problem": "1+1", "answer": r"so \boxed{}"}, "no gold answer"),
        ({"problem": ["1+1"], "answer": "2"}, "row 1 .*, column 'problem': a chat message has role and content"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=said):
        load_tasks(Benchmark("own", "own", str(tmp_path / "own.jsonl")), Prompt("plain"), make_tokenizer())


def test_the_choice_of_benchmarks() -> None:
    assert [b.problems for b in chosen(["amc23", "aime24", "amc23"], {})] == [40, 30]
    with pytest.raises(UserError, match=r"no benchmark aime26.*--data aime26=FILE"):
        chosen(["aime26"], {})
    with pytest.raises(UserError, match="does not ask for"):
        chosen(["aime24"], {"amc23": "x.jsonl"})
    with pytest.raises(UserError, match=r"benchmark aime24: no data file at /nowhere\.jsonl"):
        load_tasks(chosen(["aime24"], {"aime24": "/nowhere.jsonl"})[0], PAPER_PROMPT, make_tokenizer())


# The checker


def test_no_wrong_answer_is_accepted_that_math_verify_refuses() -> None:
    names = [
        "areal",
        "latex2sympy_parse",
        "lighteval_extractive_match",
        "math_verify",
        "misc_frameworks",
        "nemo_skills",
    ]
    agreed = [0, 0]
    for name in [*names, "qwen25math_model_preds", "rllm"]:
        for row in shared_rows(f"verifier_cases/{name}.jsonl"):
            if not isinstance(row["expected"], bool):
                continue
            golds = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
            gold = tuple(str(one) for one in golds if one is not None)
            ours = check_answer(row["pred"], gold, "any")[0] is Status.CORRECT
            parsed = math_verify.parse(row["pred"])
            theirs = any(math_verify.verify(math_verify.parse(one), parsed) for one in gold)
            assert not ours or theirs or row["expected"], row
            agreed = [agreed[0] + (ours == row["expected"]), agreed[1] + (theirs == row["expected"])]
    assert agreed[0] > agreed[1]


def test_tolerances_and_golds_that_cannot_be_read() -> None:
    for answer, status in {
        "4.3": Status.CORRECT,
        "4.1": Status.CORRECT,
        "4.31": Status.WRONG,
        "x": Status.WRONG,
    }.items():
        assert verdict(rf"\boxed{{{answer}}}", "4.2", tolerance=0.1) is status
    assert verdict(r"\boxed{4.3}", "4.2") is Status.WRONG
    unreadable = r"x_{0} \cos (\omega t)+$ $\dot{x}_{0} \sin (\omega t) / \omega"
    assert verdict(rf"\boxed{{{unreadable}}}", unreadable) is Status.CORRECT
    assert verdict(r"\boxed{7}", unreadable) is Status.WRONG
    assert verdict("seven", unreadable) is Status.NO_ANSWER


def test_golds_in_scientific_notation_are_met_by_what_models_write() -> None:
    for answer in (r"4.5 \times 10^{33}", r"45 \cdot 10^{32}", "4.5e33", r"4.5 \times 10^{33} \text{ erg/s}"):
        assert verdict(rf"\boxed{{{answer}}}", "4.5e33") is Status.CORRECT, answer
    assert verdict(r"\boxed{1.4 \times 10^{-10}}", "1.4E-10") is Status.CORRECT
    for answer in (r"4.5 \times 10^{32}", "4.5", "33", r"4.4 \times 10^{33}"):
        assert verdict(rf"\boxed{{{answer}}}", "4.5e33") is Status.WRONG, answer
    assert verdict(r"\boxed{4.5 \times 10^{33}}", "4.5e33", rules="published") is Status.WRONG, "as it was published"


def test_published_rules_read_the_whole_output_and_ours_only_the_last_box() -> None:
    assert verdict(r"\boxed{4} </think> That was easy.", "4", rules="published") is Status.CORRECT
    assert verdict(r"\boxed{4} </think> That was easy.", "4") is Status.NO_ANSWER
    assert verdict("I hope it is 4", "4", rules="published") is Status.CORRECT
    assert (
        verdict(r"Therefore, the final answer is: $\boxed{\frac{1}{2}}$.", "0.5", rules="published") is Status.CORRECT
    )
    assert verdict(r"\boxed{5}", "4", rules="published") is Status.WRONG
    assert verdict("no idea", "4", rules="published") is Status.NO_ANSWER


STUFFED = {
    "ten boxes": "".join(rf"\boxed{{{n}}} " for n in range(10)),
    "the right one first": r"\boxed{47} \boxed{46}",
    "a list": r"\boxed{45, 46, 47}",
    "alternatives": r"\boxed{46 \text{ or } 47}",
    "a set": r"\boxed{\{46, 47\}}",
    "an interval around it": r"\boxed{(46, 48)}",
    "an inequality": r"\boxed{46 < x < 48}",
    "plus or minus": r"\boxed{46 \pm 1}",
    "boxes in a box": r"\boxed{\boxed{47} \boxed{46}}",
    "words": r"\boxed{\text{either } 46 \text{ or } 47}",
    "Arabic digits": r"\boxed{٤٧}",
    "full-width digits of another number": r"\boxed{４６}",
    "mathematical digits": r"\boxed{𝟒𝟕}",
    "superscripts": r"\boxed{⁴⁷}",
    "a box that never closes": r"\boxed{47} and \boxed{47",
    "a megabyte of the answer": r"\boxed{" + "47 " * 330_000 + "}",
    "a megabyte before": "47 " * 330_000,
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 200 + "47" + "}" * 201,
    "a power tower": r"\boxed{47^{47^{47^{47^{47}}}}}",
}


def test_stuffed_answers_are_wrong_and_end_in_time(pool: CheckPool[Answered, Verdict]) -> None:
    futures = {name: pool.submit(Answered(f"so </think> {text}", ("47",))) for name, text in STUFFED.items()}
    found = {name: future.result(200) for name, future in futures.items()}
    allowed = {Status.WRONG, Status.NO_ANSWER}
    assert {name: v.status for name, v in found.items() if v.status not in allowed} == {}
    assert max(v.seconds for v in found.values()) < 5.5
    assert (
        pool.submit(Answered("".join(rf"\boxed{{{n}}} " for n in range(48)), ("47",))).result().status is Status.CORRECT
    )


@pytest.mark.parametrize("answer", ["9^{9^{9^{9}}}", "(" * 300 + "1" + ")" * 300, "1E999999999", "9" * 5000])
def test_what_is_too_large_to_read_is_wrong_with_a_tolerance_too(answer: str) -> None:
    started = time.monotonic()
    assert verdict(rf"so </think> \boxed{{{answer}}}", "4.2", tolerance=0.1) is Status.WRONG
    assert time.monotonic() - started < 1


JOINED = [
    *("{0} {1}", "{0}; {1}", "{0}, {1}", "{0}/{1}", "{0} : {1}", "{0}={1}", "x={0}={1}", "{0}|{1}", "{0} & {1}"),
    *("{0} or {1}", "({0}, {1})", "[{0}, {1}]", "{0} < x < {1}", "${0}$ ${1}$", "{0} ({1})", "{0}\n{1}"),
    *(
        rf"{{0}} \{word} {{1}}"
        for word in ("\\", "quad", "to", "mid", "approx", "neq", "lor", "cup", "pm", "leq", "wedge")
    ),
    *(
        r"\{{{0}, {1}\}}",
        r"{0} \text{{ or }} {1}",
        r"x_1 = {0}, x_2 = {1}",
        r"\begin{{cases}} {0} \\ {1} \end{{cases}}",
    ),
]


def test_an_answer_that_offers_two_values_stands_for_one_at_most() -> None:
    for joined in JOINED:
        orders = [verdict(rf"\boxed{{{joined.format(*pair)}}}", "47") for pair in ((46, 47), (47, 46))]
        assert orders != [Status.CORRECT] * 2, joined


# Classes of answers


def test_equal_wrong_answers_are_one_class(pool: CheckPool[Answered, Verdict]) -> None:
    wrong, right, none = Status.WRONG, Status.CORRECT, Status.NO_ANSWER
    found = answer_classes(
        [
            [(wrong, r"\frac{1}{2}"), (wrong, "0.5"), (right, "3"), (wrong, "4"), (wrong, r"\frac{2}{4}")],
            [(none, None), (Status.TIMEOUT, None), (wrong, "x+1"), (wrong, "1 + x"), (right, "7")],
        ],
        pool,
    )
    first, second = found.tolist()
    assert first[2] == 0 and first[0] == first[1] == first[4] > 0 and first[3] not in (0, first[0])
    assert second[:2] == [-1, -1] and second[2] == second[3] > 0 and second[4] == 0


# Other kinds of answers

GPQA = {
    "Question": "Which one?",
    "Correct Answer": " 10^-4 eV\n",
    "Incorrect Answer 1": "10^-11 eV",
    "Incorrect Answer 2": "10^-8 eV",
    "Incorrect Answer 3": "10^-9 eV",
}


def test_gpqa_as_its_own_files_have_it(tmp_path: Path) -> None:
    """The order of the options is the question's, the same each time, and puts the right one anywhere."""
    file = tmp_path / "gpqa_diamond.jsonl"
    rows = [GPQA | {"Question": f"Which one of {number}?"} for number in range(198)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (benchmark,) = chosen(["gpqa_diamond"], {"gpqa_diamond": str(file)})
    tasks = load_tasks(benchmark, Prompt("plain"), make_tokenizer())
    golds = [task.problem.gold[0] for task in tasks]
    assert all(30 <= golds.count(letter) <= 70 for letter in "ABCD")
    assert fingerprint(tasks) == fingerprint(load_tasks(benchmark, Prompt("plain"), make_tokenizer()))
    first, letter = tasks[0].problem, golds[0]
    assert f"\n{letter}) 10^-4 eV" in first.text and first.text.startswith("Which one of 0?\n\nA) ")
    answers = {
        f"The answer is ({letter}).": Status.CORRECT,
        r"\boxed{10^-4 eV}": Status.CORRECT,
        "A good one": Status.NO_ANSWER,
    }
    for rules in ("boxed", "published"):
        for text, status in answers.items():
            item = Answered(text, first.gold, None, tasks[0].answer, first.row)
            assert Check(rules)(item).status is status


def test_a_benchmark_of_ones_own_may_have_another_kind(tmp_path: Path) -> None:
    rows = [{"problem": "1", "answer": "5 m"}, {"problem": "2", "answer": "five"}]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = checked(EvaluationConfig, {}, ["--answers.own", "{kind: number, tolerance: 0.1}"], "evaluation")
    (benchmark,) = with_answers(chosen(["own"], {"own": str(file)}), config.answers)
    assert benchmark.answer == Answer(kind="number", tolerance=0.1)
    with pytest.raises(UserError, match=r"row 2 of benchmark own .* has a gold that cannot be read as number"):
        load_tasks(benchmark, Prompt("plain"), make_tokenizer())
    with pytest.raises(UserError, match=r"--answers.other is about a benchmark that --benchmarks does not ask for"):
        with_answers(chosen(["own"], {"own": str(file)}), {"other": Answer()})


def test_the_majority_compares_answers_by_their_kind(pool: CheckPool[Answered, Verdict]) -> None:
    wrong, right = Status.WRONG, Status.CORRECT
    cases = {
        Answer(kind="choice", after="Answer:", choices="options"): ["A", "A", "C"],
        Answer(kind="number", tolerance=0.01, unit_column="unit"): ["2 m", "200 cm", "3 m"],
        Answer(kind="exact", after="####"): ["Oslo", "Oslo", "oslo"],
        Answer(kind="set"): ["1; 2", "2; 1", "1; 3"],
    }
    for answer, (one, same, other) in cases.items():
        (found,) = answer_classes([[(wrong, one), (wrong, same), (wrong, other), (right, "x")]], pool, answer)
        assert found[0] == found[1] > 0 and found[2] not in (0, found[0]) and found[3] == 0, answer


def test_the_majority_compares_programs_by_their_text(pool: CheckPool[Answered, Verdict]) -> None:
    """Never by running one as the tests of the other, which any program without assertions would pass."""
    programs = [
        "def f():\n    return 1\n",
        "def f():  \n\n    return 1",
        "def f():\n    return 2\n",
        "def f():\nreturn 1\n",
    ]
    (found,) = answer_classes([[(Status.WRONG, program) for program in programs]], pool, Answer(kind="code"))
    assert found[0] == found[1] > 0 and len({*found[1:]}) == 3


# On disk


def done(problem: int, sample: int, status: Status = Status.CORRECT, benchmark: str = "own") -> Done:
    text = f"problem {problem}"
    task = Task(Problem(problem, text, (1, 2), ("4",), row={"problem": text, "answer": 4, "year": "2024"}))
    ids = np.arange(3 + sample, dtype=np.int32)
    completion = Completion(9, sample, ids, np.zeros(len(ids)), "length" if sample else "stop", (), worker=0)
    verdict, share = Verdict(status, {}, None, "4"), 0.5 if sample else 1.0
    return Done(benchmark, task, completion, verdict, "text", share, seed=5, prompt=f"<user>problem {problem}")


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    store = CompletionStore(tmp_path / "model")
    store.open({"seed": 1}, {"own": "a"})
    store.write([done(0, 0), done(1, 1, Status.TIMEOUT), done(0, 0, benchmark="other")])
    again = CompletionStore(tmp_path / "model")
    again.open({"seed": 1}, {"own": "a", "more": "b"})
    assert again.finished("own") == {(0, 0), (1, 1)} and again.finished("more") == set()
    again.write([done(0, 1, Status.WRONG)])
    again.write([done(1, 0)])
    assert again.rows("own", ["sitting"])["sitting"].to_pylist() == [1, 1, 2, 2]
    table = as_table(again.rows("own"), problems=2, samples=2)
    assert np.array_equal(table.correct(), [[1, 0], [1, np.nan]], equal_nan=True)
    assert table.tokens.tolist() == [[3, 4], [3, 4]] and table.truncated.tolist() == [[False, True]] * 2
    assert np.array_equal(table.english, [[1, 0.5]] * 2)
    with pytest.raises(KeyError):
        as_table(again.rows("own"), problems=2, samples=3)


OLDER = pa.schema(
    [
        ("benchmark", pa.string()), ("problem", pa.int32()), ("sample", pa.int32()), ("text", pa.string()),
        ("gold", pa.list_(pa.string())), ("completion", pa.string()), ("token_ids", pa.list_(pa.int32())),
        ("length", pa.int32()), ("finish_reason", pa.string()), ("status", pa.string()), ("answer", pa.string()),
        ("detail", pa.string()), ("english_share", pa.float64()), ("seed", pa.int64()), ("worker", pa.int32()),
        ("sitting", pa.int32()),
    ]
)  # fmt: skip
"""Columns as older versions wrote them."""


def test_the_folder_of_an_older_version_goes_on(tmp_path: Path) -> None:
    store = CompletionStore(tmp_path)
    store.open({"seed": 1}, {"own": "a"})
    older = {"benchmark": "own", "problem": 0, "sample": 0, "text": "problem 0", "gold": ["4"], "completion": "so 4",
             "token_ids": [1, 2], "length": 2, "finish_reason": "stop", "status": "correct", "answer": "4", "detail": "",
             "english_share": 1.0, "seed": 5, "worker": 1, "sitting": 1}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([older], schema=OLDER), tmp_path / "own-000000.parquet")
    again = CompletionStore(tmp_path)
    again.open({"seed": 1}, {"own": "a"})
    assert again.finished("own") == {(0, 0)} and again.count() == 1
    again.write([done(1, 0, Status.WRONG)])
    assert as_table(again.rows("own"), problems=2, samples=1).correct().tolist() == [[1.0], [0.0]]
    first, second = again.rows("own").to_pylist()
    assert list(first) == list(second) == SCHEMA.names
    assert (first["task"], first["problem_index"], first["problem"], first["text"]) == ("own", 0, "problem 0", "so 4")
    assert (first["prompt"], first["gold"], first["row"], first["worker"]) == (None, ["4"], None, 1)
    assert (second["problem"], second["prompt"], second["text"]) == ("problem 1", "<user>problem 1", "text")
    assert second["row"] == '{"answer": 4, "year": "2024"}'
    assert again.rows("own", ["text", "prompt"]).column_names == ["text", "prompt"]


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    CompletionStore(tmp_path).open({"seed": 1}, {"own": "a"})
    with pytest.raises(UserError, match=r"seed was 1 .* cannot become 2 .* evaluate into another folder"):
        CompletionStore(tmp_path).open({"seed": 2}, {"own": "a"})
    with pytest.raises(UserError, match=r"benchmark own have changed since the evaluation in .* began"):
        CompletionStore(tmp_path).open({"seed": 1}, {"own": "b"})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        CompletionStore(tmp_path).open({"seed": 1}, {})


# Tables


def test_published_values() -> None:
    paper, again = (published()[table]["scores"] for table in ("paper", "independent"))
    assert paper["Open-RS3"] == {"aime24": 46.7, "math500": 84.4, "amc23": 72.5, "minerva": 26.8, "olympiadbench": 51.3}
    assert again["Open-RS3"]["aime24"] == [29.7, 4.6]
    assert published_name("knoveleng/Open-RS3") == published_name("open-rs3") == "Open-RS3"
    assert published_name("/models/DeepSeek-R1-Distill-Qwen-1.5B/") == "DeepSeek-R1-Distill-Qwen-1.5B"
    assert published_name("agentica-org/DeepScaleR-1.5B-Preview") == "DeepScaleR-1.5B"
    assert published_name("open-rs3-published") is None
    assert published_name("open-rs3-published", begins=True) == "Open-RS3"
    assert published_name("quickstart", begins=True) is None


def measured(rng: np.random.Generator, chance: float, unjudged: float = 0.0, samples: int = 4) -> Samples:
    correct = (rng.random((30, samples)) < chance).astype(float)
    ones = np.ones((30, samples))
    shown = np.where(rng.random(correct.shape) < unjudged, np.nan, correct)
    return Samples(shown, correct.astype(int) - 1, 100 * ones, ones > 2, ones)


SETTINGS = {
    "protocol": "robust",
    "prompt": "paper",
    "temperature": 0.6,
    "top_p": 0.95,
    "max_tokens": 32768,
    "rules": "boxed",
    "max_unjudged_share": 0.1,
}


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """Of one table of a report, by their first cell."""
    (part,) = (part for part in text.split("## ") if part.startswith(heading))
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "a table whose rows differ in length"
    return {line[0]: line[1:] for line in lines}


def test_tables_show_all_sides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours, start = measured(rng, 0.9), measured(rng, 0.3)
    content = document(
        SETTINGS,
        {"aime24": "AIME24"},
        analyse({"open-<rs3>": {"aime24": ours}, START: {"aime24": start}}, START, 0.1),
        {"open-<rs3>": "Open-RS3", START: None},
        {"sampling": 42, "resampling": 0},
        Rate(hours=0.001, dollars=0.01),
    )
    write(tmp_path, content)
    text = (tmp_path / "report.md").read_text()
    assert f"{100 * ours.correct.mean():.1f} [" in text and f"{100 * start.correct.mean():.1f} [" in text
    assert "| 46.7 |" in text and "29.7 ± 4.6" in text and "seed 42" in text and "2504.07086" in text
    page = (tmp_path / "report.html").read_text()
    assert "open-&lt;rs3&gt;" in page and "open-<rs3>" not in page
    assert all(cell.strip() in page for cell in ("46.7", "29.7 ± 4.6"))
    assert json.loads((tmp_path / "report.json").read_text()) == content
    assert {len(row) for row in rows_of(text, "Accuracy").values()} == {1}
    _, _, completions, hours, dollars = rows_of(text, "What these samples can show")["open-<rs3>: AIME24"]
    assert (completions, hours, dollars) == ("720", "0.72", "7.20"), "3 x 30 x 4 of each of two models"


def test_an_average_stands_beside_several_benchmarks(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    models = {"mine": 0.6, START: 0.4}
    found = analyse({m: {n: measured(rng, c) for n in ("a", "b", "c")} for m, c in models.items()}, START, 0.1)
    content = document(SETTINGS, {n: n.upper() for n in "abc"}, found, {}, {"sampling": 1, "resampling": 0})
    text = markdown(content)
    row = rows_of(text, "Accuracy")["mine: avg@k [95 %]"]
    means = [float(cell.partition(" ")[0]) for cell in row]
    assert len(means) == 4 and means[3] == pytest.approx(np.mean(means[:3]), abs=0.1)
    difference, _, p, corrected = rows_of(text, "Against")["mine: average"]
    assert difference.startswith("+") and float(p) < 0.05 and corrected == "-"
    power = rows_of(text, "What these samples can show")
    smallest = [float(power[f"mine: {n}"][0]) for n in ("A", "B", "C", "average")]
    assert smallest[3] == pytest.approx(np.sqrt(np.square(smallest[:3]).sum()) / 3, abs=0.1)


def test_too_much_unjudged_is_refused_and_the_rest_is_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    a, b = measured(rng, 0.5, unjudged=0.05), measured(rng, 0.5, unjudged=0.3)
    assert 0 < np.isnan(a.correct).mean() < 0.1 < np.isnan(b.correct).mean()
    start = {name: measured(rng, 0.5) for name in ("a", "b")}
    found = analyse({"mine": {"a": a, "b": b}, START: start}, START, 0.1)
    content = document(SETTINGS, {"a": "A", "b": "B"}, found, {}, {"sampling": 1, "resampling": 0})
    text = markdown(content)
    accuracy = rows_of(text, "Accuracy")
    shown, refused, average = accuracy["mine: avg@k [95 %]"]
    assert (
        "[" in shown and refused == f"refused: {100 * np.isnan(b.correct).mean():.0f} % not judged" and average == "-"
    )
    low, high = (float(bound) for bound in accuracy["- all unjudged wrong, right"][0].split(" to "))
    assert low == pytest.approx(100 * np.nansum(a.correct) / 120, abs=0.06)
    assert high - low == pytest.approx(100 * np.isnan(a.correct).mean(), abs=0.11)
    against = rows_of(text, "Against")
    assert set(against) == {"", "---", "mine: A"}, (
        "nothing is compared with a refused figure, and no average is made of it"
    )
    assert against["mine: A"][1] != "-"
    assert content["models"]["mine"]["b"]["average"] is None


def test_runs_of_several_seeds_stand_together() -> None:
    rng = np.random.default_rng(3)
    runs = {f"seed {n}": {"a": measured(rng, c, samples=16)} for n, c in enumerate((0.5, 0.6, 0.7))}
    start = {"a": measured(rng, 0.4, samples=16)}
    found = analyse({**runs, START: start}, START, 0.1, seeds=True)
    means = [by["a"].correct.mean() for by in runs.values()]
    seeds = found.seeds["a"]
    assert (seeds.mean.mean, seeds.deviation) == (pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1)))
    assert (seeds.least, seeds.most) == (min(means), max(means))
    assert set(found.against_start) == {"mean of 3 runs", *runs}
    together = found.against_start["mean of 3 runs"]["a"].difference
    assert together.mean == pytest.approx(np.mean(means) - start["a"].correct.mean())
    text = markdown(document(SETTINGS, {"a": "A"}, found, {}, {"sampling": 1, "resampling": 0}))
    mean, deviation, span, first = rows_of(text, "All runs together")["A"]
    assert mean.startswith(f"{100 * np.mean(means):.1f} [") and deviation == f"{100 * np.std(means, ddof=1):.1f}"
    assert span == f"{100 * min(means):.1f} to {100 * max(means):.1f}" and first.startswith(
        f"{100 * start['a'].correct.mean():.1f} ["
    )


@pytest.mark.parametrize(
    ("name", "exercises"), {"minerva": 211, "olympiadbench": 643, "aime24": 30, "amc23": 40, "math500": 500}.items()
)
def test_parts_of_one_exercise_are_a_cluster(name: str, exercises: int) -> None:
    tasks = shared_tasks(name)
    found = clusters(tasks)
    assert (len(tasks) if found is None else len({*found})) == exercises
    if found is not None:
        pairs = [(a, b) for a in range(len(tasks)) for b in range(a) if found[a] == found[b]]
        assert all(tasks[a].problem.text[:60] == tasks[b].problem.text[:60] for a, b in pairs)


def test_a_file_can_name_its_clusters(tmp_path: Path) -> None:
    rows = [{"problem": f"{n}+1", "answer": n + 1, **({"cluster": n // 2} if n < 4 else {})} for n in range(6)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = clusters(
        load_tasks(*chosen(["own"], {"own": str(tmp_path / "own.jsonl")}), Prompt("plain"), make_tokenizer())
    )
    assert found is not None and [found[n] == found[n - 1] for n in range(1, 6)] == [True, False, True, False, False]


def test_a_known_name_means_all_of_its_problems(tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text(json.dumps({"problem": "3+4", "answer": "7"}) + "\n")
    with pytest.raises(UserError, match=r"aime24 has 30 problems but .* has 1: give it another name"):
        load_tasks(*chosen(["aime24"], {"aime24": str(tmp_path / "few.jsonl")}), Prompt("plain"), make_tokenizer())


def test_a_program_has_the_time_of_its_tests() -> None:
    program = Answered("", ("assert f() == 1",), answer=Answer(kind="code", cpu_s=7.0))
    assert Check("boxed").own_deadline_s(program) > 6 * 7.0
    assert Check("boxed").own_deadline_s(Answered(r"\boxed{1}", ("1",))) == 0.0
