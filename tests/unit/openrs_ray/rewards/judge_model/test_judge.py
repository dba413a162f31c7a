"""A judge model's rewards: what it is shown, what its replies are worth, and what a failure costs."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flaky_judge import FlakyJudge

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge_model.client import JudgeClient
from openrs_ray.rewards.judge_model.judge import ModelJudge
from openrs_ray.rewards.judge_model.prompts import fill, names_in, shuffled
from openrs_ray.rewards.judge_model.replies import Replies
from openrs_ray.rewards.judge_model.settings import JudgeSettings

RIGHT = Verdict(Status.CORRECT, {"accuracy": 1.0}, 2.0, "42", 0.5)
LOST = Verdict(Status.TIMEOUT, {}, None, detail="slow")
WEIGHTS = {"accuracy": 2.0, "judge": 0.5, "judge_relative": 3.0}


def judged(server: FlakyJudge, **changes: Any) -> ModelJudge:
    fast: dict[str, Any] = {"timeout_s": 0.5, "retries": 1, "backoff_s": 0.01}
    return ModelJudge(JudgeClient(JudgeSettings("tiny", server.url, **(fast | changes)), Replies(None)), WEIGHTS)


def single(server: FlakyJudge, text: str = "text", verdict: Verdict = RIGHT, **changes: Any) -> Verdict:
    return asyncio.run(judged(server, **changes).single(verdict, "6 x 7", ("42", "42.0"), text))


def relative(
    server: FlakyJudge, texts: Sequence[str], verdicts: Sequence[Verdict] | None = None, **changes: Any
) -> tuple[Verdict, ...]:
    verdicts = [RIGHT] * len(texts) if verdicts is None else verdicts
    return asyncio.run(judged(server, **changes).relative(verdicts, "6 x 7", ("42",), texts))


def test_a_score_is_added_with_its_weight() -> None:
    with FlakyJudge(lambda prompt, before: "Score: 6") as server:
        verdict = single(server)
    assert verdict.rewards == {"accuracy": 1.0, "judge": 0.6} and verdict.reward == pytest.approx(2.0 + 0.5 * 0.6)
    assert (verdict.status, verdict.answer, verdict.seconds) == (Status.CORRECT, "42", 0.5)


@pytest.mark.parametrize(("failure", "status"), [("500", Status.ERROR), ("hang", Status.TIMEOUT), ("?", Status.ERROR)])
def test_without_judgement_there_is_no_reward(failure: str, status: Status) -> None:
    with FlakyJudge(lambda prompt, before: failure) as server:
        one, others = single(server), relative(server, ["a", "b"], [RIGHT, LOST])
        group = relative(server, ["a", "b"])
    assert (one.status, one.reward, one.rewards) == (status, None, {}) and one.detail.startswith("judge: ")
    assert [(verdict.status, verdict.reward) for verdict in group] == [(status, None)] * 2
    assert others[0].reward == 3.5 and others[1] is LOST, "alone it is not compared"


def test_what_was_not_judged_before_is_not_asked_about() -> None:
    with FlakyJudge(lambda prompt, before: "Score: 6") as server:
        assert single(server, verdict=LOST) is LOST and relative(server, ["a", "b"], [LOST, LOST]) == (LOST, LOST)
    assert server.requests == 0


def test_braces_are_safe() -> None:
    text = r"\boxed{42} {problem} {gold} {0} {} }{"
    template = 'Q {problem} A {completion} G {gold}: as {"score": {n}} {'
    with FlakyJudge(lambda prompt, before: '{"score": 9}') as server:
        assert single(server, text, template=template, score_key="score").rewards["judge"] == 0.9
    assert list(server.times) == [f'Q 6 x 7 A {text} G 42: as {{"score": {{n}}}} {{']
    assert names_in(template) == {"problem", "completion", "gold"} and fill("{gold}", {}) == "{gold}"


def test_reasoning_may_be_cut() -> None:
    with FlakyJudge(lambda prompt, before: "Score: 9") as server:
        for show in (True, False):
            single(server, "<think>long</think>\nshort", template="[{completion}]", show_reasoning=show)
    assert list(server.times) == ["[<think>long</think>\nshort]", "[short]"]


def best_longest(prompt: str, scored: bool = False) -> str:
    """A judge that prefers long responses, wherever they stand."""
    texts = [part.partition("\n")[2].split("\n")[0] for part in prompt.split("Response ")[1:]]
    if scored:
        return json.dumps([min(10, len(text)) for text in texts])
    return json.dumps(sorted(range(1, len(texts) + 1), key=lambda number: -len(texts[number - 1])))


TEXTS = ["aaaa", "a", "aaa", "aaaaa", "aaa"]
SHOWN = {"relative_template": "{completions}"}


@pytest.mark.parametrize(
    ("how", "values"), [("ranking", [2 / 3, 0.0, 1 / 3, 1.0, 1 / 3]), ("scores", [0.4, 0.1, 0.3, 0.5, 0.3])]
)
@pytest.mark.parametrize("orders", [1, 3])
def test_values_find_their_completions_in_any_order(how: str, values: list[float], orders: int) -> None:
    with FlakyJudge(lambda prompt, before: best_longest(prompt, how == "scores")) as server:
        verdicts = relative(server, TEXTS, relative=how, relative_orders=orders, **SHOWN)
    assert [verdict.rewards["judge_relative"] for verdict in verdicts] == pytest.approx(values)
    assert [verdict.reward for verdict in verdicts] == pytest.approx([2.0 + 3.0 * value for value in values])
    assert server.requests == orders and all(prompt.count("Response") == 4 for prompt in server.times), "once each"


def test_a_wrong_reply_about_a_group_judges_none_of_it() -> None:
    with FlakyJudge(lambda prompt, before: "[1, 1, 2, 3]") as server:
        verdicts = relative(server, TEXTS, **SHOWN)
    assert {verdict.status for verdict in verdicts} == {Status.ERROR} and server.requests == 2
    assert all(verdict.reward is None and "no ranking of 1 to 4" in verdict.detail for verdict in verdicts)


def test_only_those_with_a_reward_are_compared() -> None:
    with FlakyJudge(lambda prompt, before: best_longest(prompt)) as server:
        verdicts = relative(server, TEXTS, [RIGHT, LOST, RIGHT, RIGHT, LOST], **SHOWN)
    values = [verdict.rewards.get("judge_relative") for verdict in verdicts]
    assert values == [0.5, None, 0.0, 1.0, None] and verdicts[1] is LOST


def test_equal_completions_are_not_compared() -> None:
    with FlakyJudge(lambda prompt, before: "[1]") as server:
        verdicts = relative(server, ["same", "same"])
    assert [verdict.rewards["judge_relative"] for verdict in verdicts] == [0.5, 0.5] and server.requests == 0


def test_a_judge_that_prefers_the_first_place_is_evened_out() -> None:
    """With a place's bonus and nothing else to go by, every completion gets the middle on average over problems."""
    count, groups = 4, 2000
    worth = 1 - np.arange(count) / (count - 1)  # by the place in which it is shown
    sums = np.zeros(count)
    for group in range(groups):
        order = shuffled([f"{group} {number}" for number in range(count)], "problem", 0)
        sums[order] += worth
    spread = worth.std() / np.sqrt(groups)
    assert np.abs(sums / groups - 0.5).max() < 4 * spread


def test_the_order_follows_from_the_content_alone() -> None:
    texts = [str(number) for number in range(12)]
    random.seed(1)
    first = shuffled(texts, "problem", 0)
    random.seed(2)
    assert shuffled(texts, "problem", 0) == first and sorted(first) == [*range(12)]
    assert shuffled(texts, "another", 0) != first and shuffled(texts, "problem", 1) != first
