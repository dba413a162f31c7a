"""`as_published` rewards: what the authors' own code gives, as values.

The values come from the unmodified `src/open_r1/rewards.py` of github.com/knoveleng/open-rs (commit 2889c47) with the versions it
pinned, math-verify 0.5.2 and latex2sympy2_extended 1.0.6, and a cosine of 3,584 as in Experiment 3.
"""

import asyncio
import math

import pytest
from paper import published
from tasks import task_of

from actors.pools.reward import RewardPool
from openrs_ray.config.rewards import Rewards
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.golds import parseable_golds
from openrs_ray.rewards.judge import Judge
from openrs_ray.rewards.records import JudgeItem

DONE = "We add.\n</think>\n"
LINE = "Let n be the number of ways; then n = 3k + 1 and so on. "

CASES = (  # completion, solution, then accuracy, cosine and format by their code
    (DONE + "\nThe sum is \\boxed{42}.", r"So \boxed{42}.", 1, 0.999846, 1),
    (DONE + "\nThe sum is \\boxed{41}.", r"So \boxed{42}.", 0, -0.000154, 1),
    ("We add, so \\boxed{42}.\n</think>\n\nDone.", "$42$", 1, 0.999861, 1),
    (r"We add, so \boxed{42} it seems, but let me", "$42$", 1, 0.999831, 0),
    (DONE + "the final answer is $42$", "$42$", 1, 0.999839, 1),
    (DONE + r"The final answer is: \(42\). I hope it is correct.", "$42$", 1, 0.999569, 1),
    (DONE + r"**Answer:** \[42\]", "$42$", 1, 0.999882, 1),
    ("The answer is $42$, wait", "$42$", 1, 0.999945, 0),
    (DONE + "the final answer is 42", "$42$", 0, -0.000146, 1),
    (DONE + "Therefore $n = 42$.", "$42$", 0, -0.000124, 1),
    (DONE + r"Therefore \fbox{42}.", "$42$", 0, -0.000131, 1),
    (DONE + r"$\boxed{42}$", r"\[42\]", 1, 0.999919, 1),
    (DONE + "\\[\n\\boxed{42}\n\\]", r"\(42\)", 1, 0.999895, 1),
    (DONE + r"$n = \boxed{42}$", "$42$", 1, 0.999895, 1),
    (DONE + r"$\boxed{n = 42}$", "$42$", 1, 0.999895, 1),
    (DONE + r"<answer>\boxed{42}</answer>", "$42$", 1, 0.999814, 1),
    (DONE + r"\boxed{42", "$42$", 0, -6.5e-05, 1),
    ("", "$42$", 0, 0, 0),
    ("<answer>42</answer>", "$42$", 0, -3.5e-05, 0),
    (DONE + r"\boxed{41} \boxed{42}", "$42$", 1, 0.999861, 1),
    (DONE + r"\boxed{41}, no, \boxed{42}", "$42$", 1, 0.999822, 1),
    (DONE + r"\boxed{42}, no, \boxed{41}", "$42$", 0, -0.000178, 1),
    (DONE + r"\boxed{41} and \boxed{42}", "$42$", 0, -0.000169, 1),
    (DONE + r"\boxed{41} and \boxed{42}", r"$\{41, 42\}$", 1, 0.999831, 1),
    (DONE + r"\boxed{41}, \boxed{42}", "$41, 42$", 1, 0.999854, 1),
    (DONE + r"$\boxed{41}$ or $\boxed{42}$", r"$\{41,42\}$", 1, 0.999806, 1),
    ("So \\boxed{41}.\n</think>\n" + LINE * 3 + r"\boxed{42}", "$42$", 1, 0.996091, 1),
    ("So \\boxed{42}.\n</think>\n" + LINE * 3 + r"\boxed{41}", "$42$", 0, -0.003909, 1),
    ("So \\boxed{42}.\n</think>\nthe final answer is $41$", "$42$", 1, 0.999779, 1),
    (DONE + r"\boxed{41}", "42", 1, 1, 1),
    ("", "forty two", 1, 1, 0),
    (DONE + r"\boxed{41}", "", 1, 1, 1),
    (DONE + r"\boxed{42}", "There are $6$ rows of $7$, so $42$", 1, 0.99993, 1),
    (DONE + r"\boxed{6}", "There are $6$ rows of $7$, so $42$", 0, -6.5e-05, 1),
    (DONE + r"\boxed{42}", r"There are $6$ rows, so \boxed{42}, not $41$", 1, 0.99993, 1),
    (DONE + r"\boxed{42}", r"\boxed{41} \boxed{42}", 1, 0.99993, 1),
    (DONE + r"\boxed{42}", "The final answer is $42$. Another way gives $41$.", 1, 0.99993, 1),
    (DONE + r"\boxed{0.5}", r"$\frac{1}{2}$", 1, 0.999925, 1),
    (DONE + r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1, 0.999876, 1),
    (DONE + r"\boxed{1/2}", r"$\frac12$", 1, 0.999925, 1),
    (DONE + r"\boxed{\dfrac{2}{4}}", r"$\frac{1}{2}$", 1, 0.999869, 1),
    (DONE + r"\boxed{0.3333}", r"$\frac{1}{3}$", 0, -9.2e-05, 1),
    (DONE + r"\boxed{42\%}", "$42$", 0, -8.1e-05, 1),
    (DONE + r"\boxed{42}", r"$42\%$", 0, -7e-05, 1),
    (DONE + r"\boxed{42\text{ cm}}", "$42$", 1, 0.999869, 1),
    (DONE + r"\boxed{42\text{ cm}^2}", "$42$", 1, 0.999854, 1),
    (DONE + r"\boxed{1<x<2}", "$(1,2)$", 1, 0.999914, 1),
    (DONE + r"\boxed{(1,2)}", "$1<x<2$", 0, -8.6e-05, 1),
    (DONE + r"\boxed{x=5}", "$5$", 1, 0.999925, 1),
    (DONE + r"\boxed{5}", "$x=5$", 1, 0.999935, 1),
    (DONE + r"\boxed{\text{Monday}}", r"$\text{Monday}$", 1, 0.999861, 1),
    (DONE + r"\boxed{2\sqrt{3}}", r"$\sqrt{12}$", 1, 0.999889, 1),
    (DONE + r"\boxed{x^2-1}", "$(x-1)(x+1)$", 1, 0.999914, 1),
    (DONE + r"\boxed{1,2}", r"$\{2,1\}$", 1, 0.999925, 1),
    (DONE + r"\boxed{[1,2)}", "$[1,2)$", 1, 0.999914, 1),
    (DONE + r"\boxed{a = b = 7}", "$7$", 1, 0.999889, 1),
    (DONE + r"\boxed{1,000}", "$1000$", 1, 0.999914, 1),
    (DONE + r"\boxed{\sqrt2}", r"$\sqrt{2}$", 0, -9.2e-05, 1),
    (DONE + r"\boxed{52_8}", "$52_8$", 1, 0.999919, 1),
    (DONE + r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"$\begin{pmatrix}1\\2\end{pmatrix}$", 1, 0.999688, 1),
    (DONE + "\\[\n\\boxed{17.5\\text{ cm}}\n\\]", "$17.5$", 1, -0.000194, 1),
    (DONE + r"\boxed{17.5\text{ cm}}", "$17.5$", 1, 0.999854, 1),
    (DONE + r"$x = \boxed{9}.$", "$9$", 1, -0.000105, 1),
    (DONE + r"$x = \boxed{9}$.", "$9$", 1, 0.999895, 1),
    (DONE + r"$\boxed{\text{Monday}}$", r"$\text{Monday}$", 1, -0.000154, 1),
    (DONE + r"$\boxed{(1, 2)}.$", "$(1,2)$", 1, -0.000111, 1),
    (DONE + r"$\boxed{3 \pm 2 \sqrt{2}}.$", r"$3 \pm 2 \sqrt{2}$", 1, -0.000186, 1),
    (r"We add.</think>\boxed{42}", "$42$", 1, 0.99994, 0),
    (DONE + "\n</think>\n\\boxed{42}", "$42$", 1, 0.999869, 0),
    ("\n</think>\n\\boxed{42}", "$42$", 1, 0.999962, 1),
    ("</think>\n\\boxed{42}", "$42$", 1, 0.999965, 0),
    (LINE * 16 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.923651, 1),
    (LINE * 16 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.076349, 1),
    (LINE * 31 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.757888, 1),
    (LINE * 31 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.242112, 1),
    (LINE * 32 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.745617, 1),
    (LINE * 32 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.254383, 1),
    (LINE * 64 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.500038, 1),
    (LINE * 64 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.499962, 1),
    (LINE * 96 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.754383, 1),
    (LINE * 96 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.245617, 1),
    (LINE * 128 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.999962, 1),
    (LINE * 128 + "\n</think>\n\\boxed{41}", "$42$", 0, -3.8e-05, 1),
    (LINE * 129 + "\n</think>\n\\boxed{42}", "$42$", 1, 0.999445, 1),
    (LINE * 129 + "\n</think>\n\\boxed{41}", "$42$", 0, -0.000555, 1),
    (LINE * 64, "42", 1, 1, 0),
)


def rewards(weights: dict[str, float], **changes: object) -> Rewards:
    return Rewards.model_validate({**published().rewards.model_dump(), "weights": weights, **changes})


@pytest.mark.parametrize("opening", ["", "<think>"])
def test_rewards_are_those_of_the_authors_code(opening: str) -> None:
    """With or without the `<think>` of the template, which is no part of what their code saw."""
    first, third = (Judge.of(rewards({name: 2.0, "format": 1.0})) for name in ("accuracy", "cosine"))
    for text, gold, accuracy, cosine, form in CASES:
        item = JudgeItem(opening + text, 7, "stop", (gold,))
        assert first(item).rewards == {"accuracy": accuracy, "format": form}, (text[-80:], gold)
        assert third(item).rewards == pytest.approx({"cosine": cosine, "format": form}, abs=1e-5), (text[-80:], gold)
        assert third(item).reward == pytest.approx(2 * cosine + form, abs=1e-5)


def test_the_readings_of_the_paper_s_text_differ_from_it() -> None:
    described = Judge.of(Rewards.model_validate({"weights": {"accuracy": 1.0}}))
    accuracies = [described(JudgeItem(text, 7, "stop", (gold,))).rewards.get("accuracy") for text, gold, *_ in CASES]
    differing = [case for case, accuracy in zip(CASES, accuracies, strict=True) if accuracy != case[2]]
    assert len(differing) >= 15


def test_golds_are_read_as_whole_texts_with_latex() -> None:
    golds = [("42",), ("so $42$",), (r"\boxed{42} it is",), ("forty two",), ("",), ("$\\frac{1}{2}$",)]
    assert parseable_golds(golds, "published", processes=1) == [False, True, True, False, False, True]
    assert parseable_golds([("42",)]) == [True]


@pytest.mark.parametrize("unjudged", ["skip", "wrong"])
def test_a_check_that_does_not_end_is_left_out_or_paid_as_a_wrong_answer(unjudged: str) -> None:
    weights = {"accuracy": 2.0, "cosine": 2.0, "format": 1.0}
    texts = [LINE * 32 + "\n</think>\n\\boxed{" + answer + "}" for answer in ("9^{9^{9^9}}", "42", "41")]

    async def judged() -> list[Verdict]:
        pool = RewardPool([task_of(rewards(weights, processes=1, deadline_s=1.0, unjudged=unjudged))])
        try:
            return await pool.judge([JudgeItem(text, 7, "stop", ("$42$",)) for text in texts])
        finally:
            await pool.close()

    hanging, correct, wrong = asyncio.run(judged())
    assert [hanging.status, correct.status, wrong.status] == [Status.TIMEOUT, Status.CORRECT, Status.WRONG]
    if unjudged == "skip":
        assert (hanging.rewards, hanging.reward) == ({}, None)
    else:
        # As the longer wrong answer would be paid: (1 + cos(pi p)) / 4 - 0.5 of its length in characters.
        wave = 0.25 * (1 + math.cos(math.pi * len(texts[0]) / 3584)) - 0.5
        assert hanging.rewards == pytest.approx({"accuracy": 0.0, "cosine": wave, "format": 1.0})
        assert hanging.reward == pytest.approx(2 * wave + 1)
