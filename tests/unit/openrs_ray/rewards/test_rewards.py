"""Extraction, accuracy, format and the weighted sum, against public suites and hostile answers."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import math_verify
import pytest
from shared_data import shared_rows

from openrs_ray.errors import UserError
from openrs_ray.records import Status
from openrs_ray.rewards.answers.check import check_answer, gold_is_parseable
from openrs_ray.rewards.answers.extraction import after_reasoning, last_boxed
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.process import WALL_FACTOR
from openrs_ray.rewards.records import JudgeItem, RewardInput
from openrs_ray.rewards.registry import SINGLE, check_reward_names


def boxed(answer: str, *gold: str) -> Status:
    return check_answer(rf"reasoning </think> The answer is \boxed{{{answer}}}.", gold, "boxed")[0]


def item(text: str, *gold: str) -> JudgeItem:
    return JudgeItem(text, token_count=10, finish_reason="stop", gold=gold)


# Extraction


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"\boxed{a \text{ for } \boxed{b}}", r"a \text{ for } \boxed{b}"),
        (r"\boxed{1} but \boxed{2", None),
        (r"\boxed{1 and \boxed{2}", "2"),
        (r"\boxed 5", None),
        ("boxed{5}", None),
        ("}} \\boxed{5}", "5"),
        ("", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


def test_last_boxed_agrees_with_public_cases() -> None:
    rows = shared_rows("verifier_cases/boxed_extraction.jsonl")
    assert [last_boxed(row["text"]) for row in rows] == [row["expected"] for row in rows]


def test_extraction_is_linear_in_hostile_text() -> None:
    started = time.monotonic()
    for piece in (r"\boxed{", "{", "}", r"\boxed{1}", r"\boxed{}{", "\\", "</think>"):
        last_boxed(after_reasoning(piece * (1_000_000 // len(piece))))
    assert time.monotonic() - started < 20


def test_only_the_answer_after_the_reasoning_counts() -> None:
    gold = ("4",)
    assert check_answer(r"\boxed{4} </think> It is \boxed{5}", gold, "boxed") == (Status.WRONG, "5")
    assert check_answer(r"\boxed{4} </think> That was easy", gold, "boxed") == (Status.NO_ANSWER, None)
    assert check_answer(r"no tags: \boxed{4}", gold, "boxed") == (Status.CORRECT, "4")
    assert check_answer(r"</think> \boxed{1}\boxed{2}\boxed{3}\boxed{4}\boxed{5}", gold, "boxed")[0] is Status.WRONG
    assert check_answer("</think> The answer is 4", gold, "boxed") == (Status.NO_ANSWER, None)
    assert check_answer("</think> The answer is 4", gold, "any") == (Status.CORRECT, "4")


# Accuracy


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("27", "27.0"),
        ("1,234", "1234"),
        ("0.5", "1/2"),
        (r"\frac{2}{4}", "0.5"),
        ("$5$", "5"),
        (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"),
        ("2x + 1", "1+2x"),
        ("x=5", "5"),
        (r"\text{east}", "east"),
        ("(1, 2)", "(1,2)"),
        (r"3 \text{ cm}", "3"),
        (r"0.333333", r"\frac13"),
        ("a + b + c", "c+b+a"),
        ("24", r"\boxed{24}"),
        ("24", "$24$"),
        ("24.", "24"),
        (r"\{3, 1\}", r"\{1,3\}"),
        ("June 20", r"\text{June 20}"),
    ],
)
def test_equal_answers(answer: str, gold: str) -> None:
    assert boxed(answer, gold) is Status.CORRECT


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("28", "27.0"),
        ("2", r"2\sqrt{3}"),
        (r"\sqrt{3}", r"2\sqrt{3}"),
        ("-5", "5"),
        ("1, 2, 3", "2"),
        ("1 or 2", "2"),
        ("(2,1)", "(1,2)"),
        ("10^{9}", "10^{10}"),
        ("x", "y"),
        ("4²", "42"),
        ("𝟜𝟚𝟛", "42"),
        ("?", "42"),
    ],
)
def test_different_answers(answer: str, gold: str) -> None:
    assert boxed(answer, gold) is Status.WRONG


@pytest.mark.parametrize(
    "answer",
    [
        *("9^{9^{9^{9}}}", "9^(9^(9^9))", "2^{10^{11}}", "1E999999999", r"47^{47^{47}}", r"2^\left( 3^{50} \right)"),
        *("1000000!", r"\left(10^9\right)!", "((9!)!)!", r"\binom{10^9}{5 \cdot 10^8}", "x_" * 60 + "x"),
    ],
)
def test_an_answer_too_large_to_read_is_wrong_at_once(answer: str) -> None:
    started = time.monotonic()
    assert boxed(answer, "47") is Status.WRONG
    assert boxed(answer, answer) is Status.CORRECT
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("2^{2^3}", "256"),
        (r"2^{2^{n}} \cdot 2", "2^{2^n+1}"),
        ("10^{100}", "10^{99} \\cdot 10"),
        ("5! + 1", "121"),
        (r"\frac{\binom{10}{5}}{2^{10}}", r"\frac{63}{256}"),
        (r"2^{10}\binom{10}{5}", "258048"),
        (r"\binom{12345}{2}", "76193340"),
        (r"\frac{5!}{3!}\cdot\binom{4}{2}", "120"),
        (r"\frac{2^n}{(n+1)!}", r"\frac{2^{n}}{(1+n)!}"),
        (r"\frac{d !}{2 k(d-k) !}", r"\frac{d!}{2k(d-k)!}"),
        (r"\binom{2021}{2}", r"\frac{2021 \cdot 2020}{2}"),
        ("(n+1)!", "(1+n)!"),
        ("x_{1}+x_{2}", "x_2+x_1"),
    ],
)
def test_what_can_be_read_is(answer: str, gold: str) -> None:
    assert boxed(answer, gold) is Status.CORRECT


def test_any_accepted_answer_will_do_and_gold_may_be_hopeless() -> None:
    assert boxed("0.5", "one half", "1/2") is Status.CORRECT
    assert boxed("0.75", "one half", "1/2") is Status.WRONG
    assert boxed("42", "forty two") is Status.UNPARSEABLE_GOLD
    assert boxed("42", "Answer is forty three.") is Status.UNPARSEABLE_GOLD
    assert boxed("42") is Status.UNPARSEABLE_GOLD
    assert check_answer("no box", ("forty two",), "boxed")[0] is Status.UNPARSEABLE_GOLD


def test_gold_is_parseable() -> None:
    good = ["5", "-3.5", "1,234", "27.0", "3/4", r"\frac{1}{2}", r"\sqrt{2}", "$x^2$", "(1,2)", r"\text{east}", "10 cm"]
    bad = ["", "  ", "forty two", "?", "(" * 500 + "1" + ")" * 500, "{" * 5000, r"\frac{"]
    assert [gold for gold in good if not gold_is_parseable((gold,))] == []
    assert [gold for gold in bad if gold_is_parseable((gold,))] == []
    assert gold_is_parseable(("forty two", "42"))
    assert not gold_is_parseable(())


@pytest.mark.parametrize(
    "name",
    [
        "areal",
        "latex2sympy_parse",
        "lighteval_extractive_match",
        "math_verify",
        "misc_frameworks",
        "nemo_skills",
        "qwen25math_model_preds",
        "rllm",
    ],
)
def test_agrees_with_public_cases_at_least_as_often_as_math_verify(name: str) -> None:
    rows = [row for row in shared_rows(f"verifier_cases/{name}.jsonl") if isinstance(row["expected"], bool)]
    golds = [as_golds(row["gold"]) for row in rows]
    ours = [check_answer(row["pred"], gold, "any")[0] is Status.CORRECT for row, gold in zip(rows, golds, strict=True)]
    theirs = [plain_math_verify(row["pred"], gold) for row, gold in zip(rows, golds, strict=True)]
    assert len(rows) > 5
    assert agreement(ours, rows) >= agreement(theirs, rows)


def as_golds(gold: Any) -> tuple[str, ...]:
    golds = gold if isinstance(gold, list) else [gold]
    return tuple(str(one) for one in golds if one is not None)


def plain_math_verify(text: str, golds: tuple[str, ...]) -> bool:
    return any(math_verify.verify(math_verify.parse(gold), math_verify.parse(text)) for gold in golds)


def agreement(verdicts: Sequence[bool], rows: Sequence[dict[str, Any]]) -> int:
    return sum(verdict == row["expected"] for verdict, row in zip(verdicts, rows, strict=True))


def test_boxed_agrees_with_public_reward_functions() -> None:
    rows = [*shared_rows("verifier_cases/reward_fn_trl.jsonl"), *shared_rows("verifier_cases/reward_fn_open_r1.jsonl")]
    rows = [row for row in rows if "accuracy_reward" in row["reward_call"]]
    assert len(rows) >= 8
    for row in rows:
        status = check_answer(row["pred"], (row["gold"],), "boxed")[0]
        expected = row["expected"]
        assert (float(status is Status.CORRECT) if status.judged else None) == expected, row


@pytest.mark.parametrize(
    ("path", "column", "unparseable"),
    [
        ("eval/aime24.jsonl", "answer", 0),
        ("eval/amc23.jsonl", "answer", 0),
        ("eval/math500.jsonl", "answer", 0),
        ("eval/olympiadbench.jsonl", "final_answer", 3),
        ("train/gsm8k_train.jsonl", "answer", 0),
        ("train/gsm8k_test.jsonl", "answer", 0),
        ("train/mawps.jsonl", "target", 0),
        ("train/svamp.jsonl", "Answer", 0),
        ("train/deepscaler_aime.json", "answer", 0),
        pytest.param("train/deepscaler_math.json", "answer", 8, marks=pytest.mark.slow),
        pytest.param("train/math_train.jsonl", "answer", 110, marks=pytest.mark.slow),  # its matrices lost their \\
    ],
)
def test_real_golds_parse(path: str, column: str, unparseable: int) -> None:
    golds = [as_golds(row[column]) for row in shared_rows(path)]
    if "gsm8k" in path:
        golds = [(gold.rpartition("####")[2].strip(),) for (gold,) in golds]
    assert sum(not gold_is_parseable(gold) for gold in golds) <= unparseable


HOSTILE = {
    "a megabyte of digits": "9" * 1_000_000,
    "a megabyte of words": "so the answer is 5 or " * 50_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of boxes": r"\boxed{1}" * 110_000,
    "deep braces": "{" * 5000 + "1" + "}" * 5000,
    "deep parentheses": "(" * 300 + "1" + ")" * 300,
    "deep roots": r"\sqrt{" * 300 + "2" + "}" * 300,
    "unclosed": r"\frac{" * 2000,
    "ten boxes": "".join(rf"\boxed{{{n}}} " for n in range(10)),
    "all the candidates": ", ".join(map(str, range(-300, 300))),
    "unicode digits": "٤٢",
    "superscripts": "⁴²",
    "power tower": "9^{9^{9^{9}}}",
    "bare power tower": "9^(9^(9^9))",
    "factorial": r"\left(10^9\right)!",
    "nested factorial": "((9!)!)!",
    "binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "long sum": r"\sum_{k=1}^{10^{12}} k^k",
    "integral": r"\int_0^{10^{10}} e^{-x^{x}} \, dx",
    "memory bomb": "2^{10^{11}}",
    "subscripts": "x_" * 60 + "x",
    "huge exponent": "1E999999999",
    "null bytes": "\x00" * 100,
    "lone surrogate": "\ud800",
    "only commands": r"\left\right\frac\sqrt" * 20,
    "infinity": r"\infty - \infty",
    "division by zero": r"\frac{1}{0}",
}


@pytest.mark.parametrize("extraction", ["boxed", "any"])
def test_hostile_answers_end_in_time_and_are_never_correct(extraction: str) -> None:
    deadline_s = 1.0
    wrap = "</think> \\boxed{{{}}}" if extraction == "boxed" else "{}"
    texts = [wrap.format(answer) for answer in HOSTILE.values()]
    with CheckPool(Judge({"accuracy": 1.0}, extraction), 2, deadline_s, 1.0, WARM_UP) as pool:
        futures = [pool.submit(item(text, "47", r"7^{\frac{1}{3}}")) for text in texts]
        verdicts = [future.result(300) for future in futures]
    statuses = dict(zip(HOSTILE, (verdict.status for verdict in verdicts), strict=True))
    allowed = {Status.WRONG, Status.NO_ANSWER, Status.TIMEOUT}
    assert {name: status for name, status in statuses.items() if status not in allowed} == {}
    # The deadline is CPU time; on a loaded machine a check waits for it.
    assert all(verdict.seconds < WALL_FACTOR * deadline_s + 1 for verdict in verdicts)


@pytest.mark.slow
def test_the_pool_costs_little_over_math_verify_alone() -> None:
    rows = shared_rows("eval/math500.jsonl")[:300]
    answers = [row["answer"] for row in rows]
    pairs = list(zip(answers, answers, strict=True)) + list(zip(answers, answers[1:] + answers[:1], strict=True))
    items = [item(rf"</think> \boxed{{{answer}}}", gold) for answer, gold in pairs]
    with CheckPool(Judge({"accuracy": 1.0}, "boxed"), 2, 30.0, 2.0, WARM_UP) as pool:

        def pooled() -> list[bool]:
            return [future.result().status is Status.CORRECT for future in [pool.submit(one) for one in items]]

        def alone() -> list[bool]:
            return [plain_math_verify(f"${answer}$", (f"${gold}$",)) for answer, gold in pairs]

        pooled(), alone()  # both with SymPy's caches full
        # The best of each is compared, since others use the machine, too.
        rounds = [(timed(pooled), timed(alone)) for _ in range(3)]
    (ours, pool_s), (theirs, alone_s) = (min(taken, key=lambda one: one[1]) for taken in zip(*rounds, strict=True))
    sys.stderr.write(f"{len(items)} checks: math-verify alone {alone_s:.2f} s, pool of 2 {pool_s:.2f} s\n")
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 0.98 * len(items)
    assert pool_s < 1.25 * alone_s  # on an idle machine with two cores it is less than half


def timed(work: Callable[[], list[bool]]) -> tuple[list[bool], float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


# Format and the sum


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>\nreasons\n</think>\nanswer", 1.0),
        ("reasons</think>answer", 1.0),
        ("\n<think>reasons</think> answer\n", 1.0),
        ("reasons", 0.0),
        ("<think>reasons", 0.0),
        ("reasons</think>", 0.0),
        ("reasons</think>  \n", 0.0),
        ("</think>answer", 0.0),
        ("<think> </think>answer", 0.0),
        ("a</think>b</think>c", 0.0),
        ("<think>a<think>b</think>c", 0.0),
        ("a<think>b</think>c", 0.0),
        ("<think>a</think>b<think>c", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, value: float) -> None:
    assert SINGLE["format"](RewardInput(text, 5, "stop", Status.WRONG, None)) == value


def test_format_agrees_with_public_cases() -> None:
    rows = shared_rows("verifier_cases/reward_fn_trl.jsonl")
    rows = [row for row in rows if "think_format_reward" in row["reward_call"]]
    assert len(rows) >= 4
    for row in rows:
        assert SINGLE["format"](RewardInput(row["pred"], 5, "stop", Status.WRONG, None)) == row["expected"], row


def test_the_reward_is_the_weighted_sum() -> None:
    judge = Judge({"accuracy": 2.0, "format": 1.0}, "boxed")
    both = judge(item(r"reasons </think> \boxed{4}", "4"))
    assert (both.status, both.rewards, both.reward) == (Status.CORRECT, {"accuracy": 1.0, "format": 1.0}, 3.0)
    assert both.answer == "4"
    only_format = judge(item(r"reasons </think> \boxed{5}", "4"))
    assert (only_format.status, only_format.reward) == (Status.WRONG, 1.0)
    neither = judge(item("reasons", "4"))
    assert (neither.status, neither.reward) == (Status.NO_ANSWER, 0.0)
    assert Judge({"accuracy": -0.5}, "boxed")(item(r"\boxed{4}", "4")).reward == -0.5
    unjudged = judge(item(r"reasons </think> \boxed{4}", "forty two"))
    assert (unjudged.status, unjudged.rewards, unjudged.reward) == (Status.UNPARSEABLE_GOLD, {}, None)


def test_unknown_rewards_are_refused_by_name() -> None:
    check_reward_names({"accuracy": 1.0, "format": 0.5})
    with pytest.raises(
        UserError, match=r"brevity.*known are accuracy, cosine, format, language,.*, length, judge, judge_relative"
    ):
        check_reward_names({"accuracy": 1.0, "brevity": 0.5})


def test_checking_processes_load_nothing_heavy() -> None:
    script = "import json, sys, openrs_ray.rewards.child, openrs_ray.rewards.judge; print(json.dumps([*sys.modules]))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {"torch", "transformers", "pydantic", "ray", "asyncio"}.isdisjoint(json.loads(loaded))
