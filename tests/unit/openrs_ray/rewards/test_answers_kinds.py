r"""Answers by `answer.kind`: statuses, golds in the formats of public benchmarks, settings, and hostile texts."""

import pickle
import random
import time
from typing import Any

import pytest
from pydantic import ValidationError

from openrs_ray.config.answer import Answer
from openrs_ray.config.rewards import Rewards
from openrs_ray.errors import UserError
from openrs_ray.records import Status
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.answers.exact import normalised
from openrs_ray.rewards.answers.place import stated, unwrapped
from openrs_ray.rewards.answers.sets import read_list, same_list
from openrs_ray.rewards.judge import Judge, Judges
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

C, W, N, U = Status.CORRECT, Status.WRONG, Status.NO_ANSWER, Status.UNPARSEABLE_GOLD


def checked(answer: Answer, text: str, gold: Any, row: dict[str, Any] | None = None) -> tuple[Status, str | None]:
    golds = (gold,) if isinstance(gold, str) else tuple(gold)
    return kinds.checker(answer, Rewards())(JudgeItem(text, 9, "stop", golds, row=row or {}))


# Rows as public data sets have them, with completions as models write them; the contents are our own.

MMLU = {"question": "Which is a city?", "choices": ["Rome", "Rhine", "Rhea", "Rust"], "answer": 0}
MMLU_PRO = {"options": [f"option {n}" for n in range(10)], "answer": "I", "answer_index": 8, "category": "law"}
ARC = {"choices": {"text": ["heat", "light", "sound", "mass"], "label": ["1", "2", "3", "4"]}, "answerKey": "3"}
GPQA = {"problem": "…", "choices": ["10^-9 s", "10^-4 eV", "10^-11 eV", "10^-8 eV"], "answer": "10^-4 eV"}
SCIBENCH = {"answer_number": "-0.66", "unit": "$10^{-3} \\mathrm{~J}$"}
OLYMPIAD_PHYSICS = {"final_answer": ["$1.20$"], "unit": "m/s", "error": "1e-1"}

BY_INDEX = Answer(kind="choice", gold_index=True, choices="choices")
FIVE_PER_CENT = Answer(kind="number", unit_column="unit", tolerance=0.05)
OWN_TOLERANCE = Answer(kind="number", unit_column="unit", tolerance_column="error")
LIKE_SQUAD = Answer(kind="exact", ignore=("case", "punctuation", "articles", "whitespace"))

PUBLIC: dict[str, list[tuple[Answer, Any, dict[str, Any], str, Status, str | None]]] = {
    "MMLU": [
        (BY_INDEX, "0", MMLU, "The answer is A.", C, "A"),
        (BY_INDEX, "0", MMLU, r"So \boxed{\text{Rome}}", C, "A"),
        (BY_INDEX, "0", MMLU, "Answer: Rust", W, "D"),
        (BY_INDEX, "0", MMLU, "A good start is Rome", N, None),
        (BY_INDEX, "4", MMLU, "Answer: A", U, None),
    ],
    "MMLU-Pro": [
        (Answer(kind="choice", choices="options"), "I", MMLU_PRO, "Let's think. The answer is (I).", C, "I"),
        (Answer(kind="choice"), "I", {}, "I think the answer is (H).", W, "H"),
        (Answer(kind="choice"), "I", {}, "I think about options.", N, None),
    ],
    "ARC": [
        (Answer(kind="choice", choices="choices"), "3", ARC, "**C**", C, "C"),
        (Answer(kind="choice", choices="choices"), "3", ARC, "The answer is sound.", C, "C"),
    ],
    "GPQA": [
        (Answer(kind="choice", choices="choices"), "10^-4 eV", GPQA, "ANSWER: B", C, "B"),
        (Answer(kind="choice", choices="choices"), "10^-4 eV", GPQA, r"$\boxed{10^-4 eV}$", C, "B"),
        (Answer(kind="choice", choices="choices"), "10^-5 eV", GPQA, "ANSWER: B", U, None),
        (Answer(kind="choice", after="Answer:"), "B", {}, "The answer is C?\nANSWER: (B)", C, "B"),
        (Answer(kind="choice", after="Answer:"), "B", {}, "The answer is B", N, None),
    ],
    "several letters": [
        (Answer(kind="choice"), "A, C", {}, r"\boxed{C, A}", C, "A, C"),
        (Answer(kind="choice"), "AC", {}, r"\boxed{AC}", C, "A, C"),
        (Answer(kind="choice", gold_list="all"), ["A", "C"], {}, "The answers are A and C", C, "A, C"),
        (Answer(kind="choice", gold_list="all"), ["A", "C"], {}, "The answer is A", W, "A"),
        (Answer(kind="choice"), ["A", "C"], {}, "The answer is A", C, "A"),
        (Answer(kind="choice"), "A", {}, "The answer is A and C", W, "A, C"),
    ],
    "SciBench": [
        (FIVE_PER_CENT, "-0.66", SCIBENCH, r"\boxed{-6.5\times10^{-4}\ \mathrm{J}}", C, None),
        (FIVE_PER_CENT, "-0.66", SCIBENCH, r"\boxed{-0.66\,\text{mJ}}", C, None),
        (FIVE_PER_CENT, "-0.66", SCIBENCH, r"\boxed{-0.66\,\text{J}}", W, None),
        (FIVE_PER_CENT, "-0.66", SCIBENCH, r"\boxed{-0.66\,\text{mV}}", W, None),
    ],
    "OlympiadBench, physics": [
        (OWN_TOLERANCE, "1.20", OLYMPIAD_PHYSICS, r"\boxed{1.29}", C, "1.29"),
        (OWN_TOLERANCE, "1.20", OLYMPIAD_PHYSICS, r"\boxed{129 cm/s}", C, None),
        (OWN_TOLERANCE, "1.20", OLYMPIAD_PHYSICS, r"\boxed{1.31}", W, "1.31"),
        (OWN_TOLERANCE, "1.20", {"unit": "m/s"}, r"\boxed{1.29}", W, None),
    ],
    "GSM8K": [
        (Answer(kind="number", after="####"), "1234", {}, "10 * 5 = 50\n#### 1,234", C, "1,234"),
        (Answer(kind="number", after="####"), "72", {}, "#### 71\nNo:\n#### 72 clips", C, "72 clips"),
        (Answer(kind="number", after="####"), "72", {}, r"\boxed{72}", N, None),
        (Answer(kind="math", after="####"), r"\frac{1}{2}", {}, r"#### 0.5", C, "0.5"),
        (Answer(kind="math", after="####"), r"\frac{1}{2}", {}, r"\boxed{0.5}", N, None),
    ],
    "DROP, SQuAD": [
        (LIKE_SQUAD, ["The Eagles", "Eagles"], {}, r"\boxed{\text{eagles.}}", C, "eagles"),
        (Answer(kind="exact"), "Eagles", {}, r"\boxed{eagles}", W, "eagles"),
        (Answer(kind="exact", after="Answer:"), "4 July 1776", {}, "**Answer:** 4 July 1776\n", C, "4 July 1776"),
        (Answer(kind="set", ignore=("case",)), ["Tom Brady", "Randy Moss"], {}, r"\boxed{Randy Moss and Tom Brady}", C, None),
        (Answer(kind="set"), ["Tom Brady", "Randy Moss"], {}, r"\boxed{\text{Tom Brady}}", W, "Tom Brady"),
        (Answer(kind="set", gold_list="any"), ["1, 2", "1, 2, 3"], {}, r"\boxed{2, 1}", C, "2; 1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_formats(name: str) -> None:
    for answer, gold, row, text, status, shown in PUBLIC[name]:
        found = checked(
            answer, f"<think>Perhaps \\boxed{{D}}. The answer is D. #### 0 Answer: 0</think>\n{text}", gold, row
        )
        assert found[0] is status, (text, found)
        assert shown is None or found[1] == shown


@pytest.mark.parametrize(
    "answer",
    [Answer(kind=kind) for kind in ("choice", "number", "exact", "set")] + [Answer(kind="exact", after="Answer:")],
)
def test_an_answer_in_unfinished_reasoning_counts_as_in_mathematics(answer: Answer) -> None:
    gold = {"choice": "B", "number": "5", "exact": "B", "set": "1, 2"}[answer.kind]
    text = rf"<think> \boxed{{{gold}}} Answer: {gold}"
    reads = kinds.checker(answer, Rewards(unfinished_reasoning="read"))
    item = JudgeItem(text, 9, "stop", (gold,))
    assert checked(answer, text, gold) == (N, None)
    assert reads(item)[0] is C


def test_mathematics_is_checked_as_before() -> None:
    for text, gold in (
        (r"\boxed{\frac12}", "0.5"),
        (r"\boxed{3}", "4"),
        ("none", "4"),
        (r"\boxed{1}", "prose of no value"),
    ):
        assert checked(Answer(), text, gold) == check_answer(text, (gold,), "boxed")


def test_without_anything_to_check_rewards_alone_judge() -> None:
    judge = Judge.of(Rewards(weights={"format": 1.0}), Answer(kind="none"))
    verdict = judge(JudgeItem("<think>so</think> done", 9, "stop", ()))
    assert (verdict.status, verdict.reward, verdict.answer) == (Status.UNCHECKED, 1.0, None)
    assert verdict.status.judged
    for name in ("accuracy", "cosine", "length"):
        with pytest.raises(UserError, match=f"rewards.weights has {name}, which asks for right answers"):
            kinds.check_kind(Answer(kind="none"), Rewards(weights={name: 1.0}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("extraction", "any"), ("comparison", "answer_first"), ("final_form", True), ("unparseable_gold", "reward")],
)
def test_settings_of_mathematics_are_refused_elsewhere(name: str, value: Any) -> None:
    rewards = Rewards(**{name: value})
    kinds.check_kind(Answer(), rewards)
    with pytest.raises(UserError, match=f"rewards.{name} is for answer.kind math, not choice: leave it out"):
        kinds.check_kind(Answer(kind="choice"), rewards)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tolerance": 0.1}, "answer.tolerance is for answer.kind number, not math"),
        ({"kind": "choice", "unit": "m"}, "answer.unit is for answer.kind number, not choice"),
        ({"kind": "exact", "ordered": True}, "answer.ordered is for answer.kind set, not exact"),
        ({"kind": "none", "after": "####"}, "answer.after is for answer.kind math and choice and"),
        (
            {"kind": "number", "unit": "m", "unit_column": "unit"},
            "answer.unit and answer.unit_column exclude each other",
        ),
        ({"kind": "number", "tolerance": 2}, "less than or equal to 1"),
        ({"kind": "letters"}, "Input should be"),
        ({"kind": "exact", "ignore": ["capitals"]}, "Input should be"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Answer(**given)
    Answer(**Answer(kind="number", tolerance=0.1).model_dump())  # a whole record, as a run's folder has it


def test_places() -> None:
    assert stated("So\n#### 72\n", "####") == "72" and stated("#### 71 #### 72", "####") == "72"
    assert stated("**Answer:** Paris", "answer:") == stated("Answer:\n\n**Paris**", "Answer:") == "Paris"
    assert stated(r"Answer: so \boxed{Paris}.", "Answer:") == "Paris"
    assert stated("no marker", "####") is stated("####", "####") is stated("no box", None) is None
    assert unwrapped(r" $\text{**Paris**}$ ") == "Paris" and unwrapped(r"\frac{1}{2}") == r"\frac{1}{2}"


def test_strings() -> None:
    assert normalised("  The  Cat ", ()) == "The  Cat"
    assert normalised("  The  Cat, a Dog! ", ("case", "articles", "punctuation")) == "cat dog"
    assert normalised("ｅ́ﬁ", ("unicode",)) == "éfi"
    assert normalised("a\n b", ("whitespace",)) == "a b"
    assert normalised("theatre another", ("articles",)) == "theatre another"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        *(("1, 2 and 3", "3,2,1", True), (r"\{1,2,3\}", "[3, 2, 1]", True), (r"\left\{1,\,2\right\}", "1 and 2", True)),
        *(('["a","b"]', "b, a", True), ("1,000, 2,000", "2000; 1000", True), ("1,2", "12", False), ("a, b", "a", False)),
        *((r"\emptyset", "{}", True), ("1, 1, 2", "1, 2", True), ("2.0", "2", True), (r"1 \text{ and } 2", "2, 1", True)),
        *(("red, green, and blue", "blue; green; red", True), ("(1, 2)", "2, 1", True), ("{a}", "a", True)),
        *((r"\text{red}, \text{blue}", "blue, red", True), ("sand, land", "land, sand", True), ("a, B", "A, b", False)),
        *(("1/2", "0.5", False), ("salt and pepper; bread", "bread; salt and pepper", True), ("1,2, 3", "3,2,1", True)),
    ],
)  # fmt: skip
def test_lists_as_sets(one: str, other: str, same: bool) -> None:
    assert same_list(read_list(one), read_list(other)) == same_list(read_list(other), read_list(one)) == same


def test_order_and_repeats_count_where_asked() -> None:
    assert not same_list(read_list("1, 2"), read_list("2, 1"), ordered=True)
    assert same_list(read_list("1, 1, 2"), read_list("1, 2"), ordered=True)
    assert not same_list(read_list("1, 1, 2"), read_list("1, 2"), repeats=True)
    assert same_list(read_list("1, 1, 2"), read_list("1, 2, 1"), repeats=True)


@pytest.mark.parametrize(
    ("answer", "text", "gold"),
    [
        (Answer(kind="choice"), r"\boxed{A, C}", "A, C"),
        (Answer(kind="number"), r"\boxed{5\,\text{m}}", "500 cm"),
        (Answer(kind="exact", ignore=("case",)), r"\boxed{Paris}", "PARIS"),
        (Answer(kind="set"), r"\boxed{b and a}", "a, b"),
    ],
)
def test_a_shown_answer_in_a_box_is_the_same_answer(answer: Answer, text: str, gold: str) -> None:
    """The majority vote compares answers by it."""
    status, shown = checked(answer, text, gold)
    assert status is C and shown is not None
    assert checked(answer, rf"\boxed{{{shown}}}", gold) == (C, shown) == checked(answer, rf"\boxed{{{shown}}}", shown)


# Hostile texts

_PIECES = (
    *("\\boxed{", "}", "{", "\\frac{", "\\text{", "(", "[", "]", ")", "A", "B", " or ", " and ", ",", ";", "the answer is "),
    *("answer: ", "10**10**10", "^", "^{", "9" * 50, "e999999", "1e-99999", "m/s", "/", "*", "kg ", " " * 50, "\n", "\\sqrt"),
    *("\\mu", "°C", "%", "$", "\\(", "####", "</think>", "<think>", "_", "**", "`", "½", "１", "\u202e", "\x00", "\ud800"),
    *("so ", "if ", "not ", "Option ", "therefore A", "\nA) ", "\nB\n", "m^9999", "1/0", "\\pi", "sqrt(", "((", "--"),
    *("so B is correct ", "1,000", "JmolK", "aaaaaaaa", "İ", "ß", "5", "million ", '["a"', "[1,[2", "\\{"),
    *("per per ", "square ", "deg", "x10^8", "⁹⁹"),
)  # fmt: skip


def hostile(count: int) -> list[str]:
    draw = random.Random(7)
    texts = []
    for number in range(count):
        text = "".join(draw.choice(_PIECES) for _ in range(draw.choice([1, 3, 10, 40, 200, 1000])))
        if number % 5 == 0:
            text = draw.choice(_PIECES) * draw.choice([100, 1000, 5000])
        if number % 3 == 0:
            text = "\\boxed{" + text.replace("}", "")[: draw.choice([50, 290, 2000])] + "}"
        texts.append(f"The answer is {text}" if number % 7 == 0 else text)
    return texts


@pytest.mark.parametrize(
    "answer",
    [
        Answer(kind="choice", choices="choices"),
        Answer(kind="choice", after="####"),
        Answer(kind="number", tolerance=0.01),
        Answer(kind="exact", ignore=("case", "whitespace", "punctuation", "unicode", "articles")),
        Answer(kind="set"),
    ],
    ids=lambda answer: f"{answer.kind} {answer.after or ''}",
)
def test_2000_hostile_texts_are_judged_each_within_50_ms(answer: Answer) -> None:
    gold = {"choice": "B", "number": "5 m/s", "exact": "Paris", "set": "1, 2"}[answer.kind]
    check, row = kinds.checker(answer, Rewards()), {"choices": ["a", "b", "c" * 500, "d"]}
    check(JudgeItem(r"\boxed{1 m}", 9, "stop", (gold,), row=row))  # loads what it needs

    def seconds(text: str) -> float:
        start = time.thread_time()
        status, _ = check(JudgeItem(text, 9, "stop", (gold,), row=row))
        assert status.judged
        return time.thread_time() - start

    # A garbage collection may fall into one of them, but not again.
    assert not [text for text in hostile(2000) if seconds(text) > 0.05 and seconds(text) > 0.05]


def test_one_pool_judges_tasks_of_every_kind() -> None:
    answers = {
        "number": Answer(kind="number", tolerance=0.01),
        "choice": Answer(kind="choice", choices="options"),
        "exact": Answer(kind="exact"),
        "set": Answer(kind="set"),
        "math": Answer(),
    }
    judges = Judges({name: Judge.of(Rewards(weights={"accuracy": 1.0}), answer) for name, answer in answers.items()})
    cases = [
        ("number", r"\boxed{3.6 km/h}", "1 m/s", C),
        ("number", r"\boxed{10**10**10 m/s}", "1 m/s", W),
        ("number", "none", "1 m/s", N),
        ("choice", r"\boxed{Oslo}", "B", C),
        ("exact", r"\boxed{oslo}", "Oslo", W),
        ("set", r"\boxed{2, 1}", "1, 2", C),
        ("math", r"\boxed{\frac12}", "0.5", C),
    ]
    row = {"options": ["Rome", "Oslo"]}
    with CheckPool(judges, 1, 5.0, 2.0) as pool:
        items = [JudgeItem(text, 9, "stop", (gold,), row=row, task=task) for task, text, gold, _ in cases]
        verdicts = [pool.submit(item).result() for item in items]
    assert [verdict.status for verdict in verdicts] == [status for *_, status in cases]
    assert [verdict.reward for verdict in verdicts] == [float(status is C) for *_, status in cases]
    assert pickle.loads(pickle.dumps(judges)) == judges
