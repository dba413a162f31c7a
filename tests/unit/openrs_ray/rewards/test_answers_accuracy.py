r"""Answers read whole: each kind of mistake that public bug reports name, as vectors of (answer, gold) with their verdict.

The vectors are our own, one or a few of each kind; the reports themselves are read where the shared data is.
"""

import time

import numpy as np
import pytest
from shared_data import shared_rows

from openrs_ray.algorithm.step_metrics import step_metrics
from openrs_ray.evaluation.check import Answered, Check
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.answers.final_form import copies, is_value
from openrs_ray.rewards.answers.normalise import spelled, tidy
from openrs_ray.rewards.answers.units import without_units
from openrs_ray.rewards.judge import Judge
from openrs_ray.rewards.records import JudgeItem

EQUAL = {
    "letters in \\mathrm": [("3+2i", r"3+2\mathrm{i}"), (r"2\mathrm{e}", "2e"), (r"7-\mathrm{i}", "7-i")],
    "complex numbers": [(r"e^{i\pi}", "-1"), ("i^2", "-1"), (r"\frac{1}{i}", "-i")],
    "Unicode": [("½", r"\frac{1}{2}"), ("2½", "2.5"), ("１２", "12"), ("√2", r"\sqrt{2}"), ("x²", "x^2"), ("−5", "-5")],
    "ASCII mathematics": [("4*sqrt(5)", r"4\sqrt{5}"), ("exp(9)-3", "e^9-3"), ("8^(1/2)", r"\sqrt{8}"), ("2*pi", r"2\pi")],
    "arguments without braces": [(r"6\sqrt(3)", r"6\sqrt{3}"), (r"\frac\pi2", r"\frac{\pi}{2}"), (r"\sqrt[3]8", "2")],
    "typography": [(r"\color{red}{5}", "5"), ("**5**", "5"), ("~5", "5"), (r"\displaystyle\frac12", "0.5")],
    "currency": [(r"\text{\$}18", "18"), (r"\$1,250", "1250"), ("€7", "7"), ("11¢", "11")],
    "mixed numbers": [(r"3\frac{1}{2}", "3.5"), ("3 1/2", r"\frac{7}{2}"), (r"-1\tfrac13", r"-\frac43")],
    "repeating decimals": [(r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", r"\frac16"), (r"0.8333\ldots", r"\frac56")],
    "scientific notation": [(r"2.88 \times 10^{-19}", "2.88e-19"), ("1.5e-4", "0.00015"), ("3E8", r"3\cdot 10^8")],
    "vectors": [(r"\langle 1, 2\rangle", "(1,2)")],
    "inequalities": [("5>x>2", "2<x<5"), (r"-x \leq -3", r"x \geq 3")],
    "degrees": [(r"\sin 30^\circ", r"\frac12"), (r"72^\circ", "72"), (r"\cos(60^\circ)", "0.5")],
    "empty sets": [(r"\varnothing", r"\emptyset"), (r"\{\}", r"\varnothing")],
    "bases": [("(52)_8", "52_8"), ("52_{8}", "52_8")],
    "words": [("true", "True"), (r"\text{evelyn}", "Evelyn"), (r"\textbf{IV}", "IV")],
    "choices": [(r"\text{C: the larger one}", "C"), ("(C) 12", r"\text{(C)}"), (r"\textbf{(B)}", "B")],
    "names": [(r"P(X>2)=\frac13", r"\frac13"), ("m+n=256+37=293", "293"), ("x_1=2, x_2=3", "2,3"), ("x=2, y=3", "(2,3)")],
    "units": [("35 cm", "35"), (r"35 \text{ cm}^2", "35"), ("12 apples", "12"), (r"5 \text{ for all } n", "5")],
    "more units": [("3:45", r"3:45 \text{ p.m.}"), (r"5 \text{ million}", "5000000"), (r"3^{\text{rd}}", "3")],
    "units of one letter": [(r"5\,\text{m}", "5"), (r"2.5 \, \mathrm{J}", "2.5"), (r"2\sqrt{3}\ \text{m}^2", r"2\sqrt3"),
                            (r"1.6 \times 10^{-19} \, \text{C}", "1.6e-19"), (r"9.8 \frac{\text{m}}{\text{s}^2}", "9.8"),
                            (r"10\,\text{m}/\text{s}", "10"), ("5 m", "5"), (r"300\,K", "300"), ("3 n", "3n"), ("5 m", "5m")],
    "percent": [(r"25\text{\%}", "25"), ("60", r"60\%"), (r"\frac35", r"60\%"), (r"12.5\%", "0.125")],
    "decimals of other numbers": [("0.333333", r"\frac13"), ("0.666667", r"\frac23"), ("3.605551275463989", r"\sqrt{13}")],
    "expressions": [("(a+b)^2", "a^2+2ab+b^2"), (r"\sec^2 t", r"1+\tan^2 t"), (r"\sqrt{1/m}", r"\frac{1}{\sqrt m}")],
    "factorials": [("3!!", "3"), ("n!", "n(n-1)!"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}")],
    "lists that are no mathematics": [("where b is even, f=x+b", "f=x+b, where b is even")],
}  # fmt: skip
DIFFERENT = {
    "parts of an answer": [("5", r"3+2\mathrm{i}"), (r"6\sqrt(3)", "6"), (r"5 \\ 7", "7"), ("-1", "-1./3"),
                            ("x^2", r"x^2\mathrm{e}^x")],
    "ratios": [(r"1:4:9:\ldots", r"1:2:3:\ldots"), ("2:5", "2:3")],
    "signs": [(r"1+\frac{1}{\mathrm{e}}", r"1-\frac{1}{\mathrm{e}}")],
    "words around a number": [(r"\text{The answer is 5 or 7}", "5"), (r"5 \text{ if } x>0, 7 \text{ otherwise}", "5")],
    "no values": [(r"\frac{0}{0}", "0"), (r"\frac{1}{0}", r"\infty"), (r"\ldots", "5")],
    "words": [("IV", "VI"), ("BADC", "ABCD"), ("left", "felt"), ("False", "True"), ("ABCD", "C"), (r"\text{A or B}", "A")],
    "tiny and huge numbers": [("2.88e-21", "2.88e-19"), ("0.0000001", "0.0000002"), (r"\frac{1}{1502!}", r"\frac{1}{1500!}"),
                              ("123456790.5", "123456789.5"),
                              (r"\frac{1}{3\cdot 2^{1002}}", r"\frac{2^{1001}+1}{3\cdot 2^{1002}}"),
                              (r"10^{-20}x", r"2\cdot 10^{-20}x"), (r"\sqrt2\cdot 10^{-60}", r"\sqrt3\cdot 10^{-60}")],
    "decimals of other numbers": [("33.3", r"\frac{100}{3}"), ("0.333334", r"\frac13"), ("0.0000001", r"\frac{1}{9999999}")],
    "bases": [("52_9", "52_8"), ("738", "73_8")],
    "two numbers side by side": [("5 7", "12"), (r"5 \quad 7", "12"), ("12 345", "357")],
    "chains that contradict themselves": [("5 = 6 = 7", "7"), ("x=5=7", "7")],
    "mixed numbers": [(r"3\frac12", r"\frac32"), (r"\frac32", r"3\frac12")],
    "ellipses": [(r"1, 3, 5, \ldots, 2n-1", r"1, 2, \ldots, n")],
    "times of day": [("10:00 a.m.", r"10:00 \text{ p.m.}"), ("1:15", "3:45")],
    "order": [("(3,2)", "(2,3)"), ("x=3, y=2", "(2,3)")],
    "domains": [(r"\sqrt{x^2}", "x"), ("|x|", "x"), ("x+1", "x+2"), ("f(x)=0", "f(x)=x")],
    "variables are no units": [("3k", "3"), ("3m", "3"), ("3 n", "3"), ("3 x", "3"), (r"x\,\text{m}", "x"), ("5 m", "5n"),
                               (r"2\text{m}+\text{n}", "2"), (r"5 + 2\,\text{m}", "5")],
    "choices": [("(C) or (D)", "C"), ("(B) 12", "C")],
}  # fmt: skip


def boxed(answer: str, *gold: str) -> Status:
    return check_answer(rf"reasoning </think> The answer is \boxed{{{answer}}}.", gold, "boxed")[0]


@pytest.mark.parametrize("kind", EQUAL)
def test_equal(kind: str) -> None:
    assert [pair for pair in EQUAL[kind] if boxed(*pair) is not Status.CORRECT] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different(kind: str) -> None:
    assert [(pair, boxed(*pair)) for pair in DIFFERENT[kind] if boxed(*pair) is Status.CORRECT] == []


def test_public_reports() -> None:
    rows = shared_rows("verifier_cases/public_reports.jsonl")
    verdicts = [check_answer(row["pred"], (row["gold"],), "boxed")[0] is Status.CORRECT for row in rows]
    agreed = sum(verdict == row["expected"] for verdict, row in zip(verdicts, rows, strict=True))
    false_positives = [row for verdict, row in zip(verdicts, rows, strict=True) if verdict and not row["expected"]]
    assert agreed >= 0.98 * len(rows)
    assert false_positives == []


@pytest.mark.parametrize(
    ("text", "gold", "status"),
    [
        (r"They are \boxed{2} and \boxed{3}.", "2,3", Status.CORRECT),
        (r"\boxed{2}, \boxed{3}", "3, 2", Status.CORRECT),
        (r"$x=\boxed{2}$ or $x=\boxed{3}$", "2,3", Status.CORRECT),
        (r"\boxed{2} and \boxed{3}", "3", Status.WRONG),
        (r"\boxed{2} and \boxed{3}", "2,3,4", Status.WRONG),
        (r"First \boxed{2}. Then \boxed{3}", "3", Status.CORRECT),
        (r"\boxed{2} \boxed{3}", "3", Status.CORRECT),
        (r"\boxed{3} or \boxed{3}", "3", Status.CORRECT),
    ],
)
def test_boxes_of_one_sentence_are_one_answer(text: str, gold: str, status: Status) -> None:
    assert check_answer(f"</think> {text}", (gold,), "boxed")[0] is status


def test_unfinished_reasoning_is_no_answer_but_as_published() -> None:
    cut = r"<think> maybe \boxed{5}, let me check that"
    assert check_answer(cut, ("5",), "boxed") == (Status.NO_ANSWER, None)
    assert check_answer(cut, ("5",), "boxed", unfinished_reasoning="read") == (Status.CORRECT, "5")
    assert check_answer(rf"<think> a </think> \boxed{{5}} <think> {cut}", ("5",), "boxed")[0] is Status.NO_ANSWER
    assert check_answer(r"no tags \boxed{5}", ("5",), "boxed")[0] is Status.CORRECT
    assert Judge({"accuracy": 1.0}, "boxed")(JudgeItem(cut, 9, "length", ("5",))).reward == 0.0
    read = Judge({"accuracy": 1.0}, "boxed", unfinished_reasoning="read")
    assert read(JudgeItem(cut, 9, "length", ("5",))).reward == 1.0


def test_published_evaluation_reads_the_last_box_alone() -> None:
    check = Check("published")
    assert check(Answered(r"\boxed{1}, \boxed{2}", ("2",))).status is Status.CORRECT
    assert check(Answered(r"\boxed{1}, \boxed{2}", ("1,2",))).status is Status.WRONG


def test_final_form_wants_a_value_where_the_gold_is_a_number() -> None:
    def final(answer: str, gold: str) -> Status:
        return check_answer(rf"</think> \boxed{{{answer}}}", (gold,), "boxed", final_form=True)[0]

    assert boxed("47+38", "85") is Status.CORRECT
    assert [final(one, "85") for one in ("47+38", r"\frac{170}{1+1}", r"\sqrt{7225}")] == [Status.WRONG] * 3
    values = ["85", "x=85", "47+38=85", "85 cm", "85.0", r"\frac{170}{2}", r"8.5 \times 10", "8.5e1"]
    assert [one for one in values if final(one, "85") is not Status.CORRECT] == [r"8.5 \times 10"]
    assert final("x+x", "2x") is Status.CORRECT and final(r"1\frac12", "1.5") is Status.CORRECT
    assert is_value(r"40\%") and not is_value("2^{10}")


def test_correct_answers_that_copy_the_problem_are_counted() -> None:
    assert copies("47+38", "What is $47 + 38$?") and copies(r"47 \cdot 38", r"Compute $47\times 38$.")
    assert not copies("85", "Is 85 = 85?") and not copies("46+39", "What is $47 + 38$?")
    completion = Completion(0, 0, np.zeros(3, np.int32), np.zeros(3, np.float32), "stop", (VersionSpan(0, 0, 3),), 0)
    verdicts = (
        *(Verdict(Status.CORRECT, {"accuracy": 1.0}, 1.0, answer) for answer in ("47+38", "47+38", "85")),
        Verdict(Status.WRONG, {"accuracy": 0.0}, 0.0, "47+38"),
    )
    group = Group(0, Problem(0, "What is $47 + 38$?", (1,), ("85",)), (Rollout.of([completion]),) * 4, verdicts)
    assert step_metrics([group])["copied_expressions"] == 2.0


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("½ + 2*sqrt(3)", r"\frac{1}{2} + 2\cdot \sqrt{3}"),
        (r"\left[2,5\right)", "[2,5)"),
        (r"22,\! 333,\! 400", "22,333,400"),
        ("12 345", "12345"),
        ("5 7", "5 7"),
        ("2e-3", "2e-3"),
        (r"\begin{pmatrix}1\\ 2\end{pmatrix}", r"\begin{pmatrix}1\\ 2\end{pmatrix}"),
        (r"E_{0}^{2} e^{2}", r"\text{E}_{0}^{2} e^{2}"),
    ],
)
def test_the_normal_spelling(written: str, normal: str) -> None:
    assert spelled(tidy(written)) == normal
    assert spelled(tidy(normal)).replace(" ", "") == normal.replace(" ", "")


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("35 cm", "35"),
        (r"1.5 \text{ m/s}^2", "1.5"),
        (r"5 \text{ or more}", r"5 \text{ or more}"),
        ("5 if x", "5 if x"),
        (r"x^2 \text{ square units}", "x^2"),
        (r"\sin 30^\circ", r"\sin 30^\circ"),
        ("2m", "2m"),
        ("28 percent", r"28\%"),
    ],
)
def test_units_are_dropped(written: str, left: str) -> None:
    assert without_units(tidy(written)) == left


HOSTILE = [
    *(r"(1+x)^{99999}", "x^{x^{x^{x}}}", r"\gamma(10^9)", r"\Gamma(10^9)", r"\gcd(10^{99999},2)", r"\left(10^9 x^0\right)!"),
    *(r"(((3!)!)!)!", r"0.5^{99999}", r"e^{e^{e^{e^{e}}}}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{99999}", r"\sin(9^{9^9})"),
    *(r"(x+y+z)^{5000}", r"\sinh(99999999)", r"\sqrt{2}^{99999}", r"9^{9^9} \mod 7", r"|x|^{9^9}"),
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE)
def test_sizes_are_estimated_before_anything_is_worked_out(answer: str) -> None:
    """As processor time, so that other work on the machine does not count."""
    for gold in ("47", r"7^{\frac{1}{3}}", "x+1", "(0,1)"):
        started = time.process_time()
        assert boxed(answer, gold) is Status.WRONG
        assert time.process_time() - started < 2.5
