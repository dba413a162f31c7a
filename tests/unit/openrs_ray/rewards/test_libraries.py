"""Judgement by reasoning-gym and verifiers in checking processes, against the libraries called directly."""

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from places import SUPPORT

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.task import Task
from openrs_ray.data.libraries import library_rows
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge import Judges, warm_up_of
from openrs_ray.rewards.libraries.names import implied
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

Row = Mapping[str, Any]


def task_of(path: str, **parameters: Any) -> Task:
    content = implied({"data": {"path": path, "parameters": parameters}})
    answer, rewards = Answer.model_validate(content["answer"]), Rewards.model_validate(content["rewards"])
    return Task("", Data.model_validate(content["data"]), answer, rewards, EnvironmentSection())


def judged(task: Task, items: list[JudgeItem], deadline_s: float = 20.0) -> list[Verdict]:
    with CheckPool(Judges.of([task]), 1, deadline_s, 4.0, warm_up_of([task])) as pool:
        return [future.result() for future in [pool.submit(item) for item in items]]


def item(text: str, row: Row, *turns: str, finish_reason: str = "stop") -> JudgeItem:
    return JudgeItem(text, 9, finish_reason, (), row=row, turns=turns)


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("verifiers", reason="the extra verifiers is not installed")
    monkeypatch.syspath_prepend(SUPPORT / "verifiers_environments")
    yield


def test_a_library_s_problems_bring_their_answers_and_rewards_unless_told_otherwise() -> None:
    path = {"path": "reasoning-gym:chain_sum"}
    content = implied({"data": path})
    assert content["answer"] == {"kind": "reasoning_gym"} and content["rewards"] == {"weights": {"reasoning_gym": 1.0}}
    mine = {"data": path, "answer": {"kind": "math"}, "rewards": {"weights": {"accuracy": 2.0}}}
    assert implied(mine) == mine
    content = implied({"environment": {"name": "verifiers:x", "parameters": {"size": 3}}})
    assert content["data"] == {"path": "verifiers:x", "parameters": {"size": 3}}
    assert implied({"data": {"path": "verifiers:x"}})["environment"] == "verifiers:x"
    bounded = implied({"data": {"path": "verifiers:x"}, "environment": {"max_turns": 3}})
    assert bounded["environment"] == {"name": "verifiers:x", "max_turns": 3}
    several = implied({"data": [{"path": "toy"}, {"path": "reasoning-gym:y"}]})["data"]
    assert several[0] == {"path": "toy"} and several[1]["answer"] == {"kind": "reasoning_gym"}
    assert implied({"data": {"path": "toy"}}) == {"data": {"path": "toy"}}


@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "countdown", "rearc", "word_sorting"])
def test_scores_are_the_library_s_own(name: str) -> None:
    library = pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    task = task_of(f"reasoning-gym:{name}", seed=3, size=3)
    rows, made = library_rows(task.data), library.create_dataset(name, seed=3, size=3)
    answers = ["17", "", rows[0]["answer"], rows[1]["answer"], f"about {rows[0]['answer']}!"]
    items = [item(f"so <answer>{answer}</answer>", row) for row in rows for answer in answers]
    verdicts = judged(task, items)
    expected = [made.score_answer(answer.strip(), made[n]) for n in range(3) for answer in answers]
    assert [verdict.reward for verdict in verdicts] == pytest.approx(expected)
    assert [verdict.status is Status.CORRECT for verdict in verdicts] == [score == 1.0 for score in expected]
    assert {1.0} < {*expected}, "right ones, and others"


def test_an_answer_is_in_a_tag_or_a_box() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    task = task_of("reasoning-gym:chain_sum", seed=3, size=1)
    (row,) = library_rows(task.data)
    right = row["answer"]
    texts = [rf"\boxed{{{right}}}", rf"\boxed{{5}} <answer> {right} </answer>", f"it is {right}", f"<answer>{right}"]
    boxed, tagged, bare, unclosed = judged(task, [item(text, row) for text in texts])
    assert boxed.status is tagged.status is Status.CORRECT and boxed.rewards == {"reasoning_gym": 1.0}
    assert bare.status is unclosed.status is Status.NO_ANSWER and bare.reward == 0.0


def test_scoring_that_hangs_or_raises_is_no_judgement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Late(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'openrs_ray.rewards.libraries.reasoning_gym':\n"
        "            import time\n"
        "            from reasoning_gym.arithmetic.chain_sum import ChainSumDataset as made\n"
        "            own = made.score_answer\n"
        "            def score(self, answer, entry):\n"
        "                while answer == 'hang': pass\n"
        "                if answer == 'sleep': time.sleep(1000)\n"
        "                if answer == 'raise': raise KeyError('answer')\n"
        "                return own(self, answer, entry)\n"
        "            made.score_answer = score\n"
        "sys.meta_path.insert(0, Late())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = task_of("reasoning-gym:chain_sum", seed=3, size=1)
    (row,) = library_rows(task.data)
    said = ["hang", row["answer"], "sleep", "raise", row["answer"]]
    verdicts = judged(task, [item(f"<answer>{text}</answer>", row) for text in said], deadline_s=1.0)
    wanted = [Status.TIMEOUT, Status.CORRECT, Status.TIMEOUT, Status.ERROR, Status.CORRECT]
    assert [verdict.status for verdict in verdicts] == wanted and "KeyError" in verdicts[3].detail
    assert [verdict.reward for verdict in verdicts] == [None, 1.0, None, None, 1.0]


def test_a_killed_score_that_counts_as_wrong_is_not_run_in_the_actor() -> None:
    task = task_of("reasoning-gym:chain_sum")
    judges = Judges.of(
        [Task("", task.data, task.answer, task.rewards.model_copy(update={"unjudged": "wrong"}), task.environment)]
    )
    settled = judges.settle(item("<answer>x</answer>", {"no": "row"}), Verdict(Status.TIMEOUT, {}, None))
    assert settled.reward == 0.0 and settled.rewards == {"reasoning_gym": 0.0}


@pytest.mark.usefixtures("environments")
def test_the_reward_of_an_environment_is_the_weighted_sum_of_its_functions() -> None:
    task = task_of("verifiers:reversed_words", words=2)
    rows = library_rows(task.data)
    texts = ["0221", "12", "It is 0221", "<think>\nhm\n</think>\n\n0221"]
    verdicts = judged(task, [item(text, rows[1]) for text in texts])
    last = ["0221", "12", "It is 0221", "0221"]  # the thoughts stand apart, as behind a server with a reasoning parser
    expected = [2.0 * SequenceMatcher(None, text, "0221").ratio() + 0.5 / (1 + len(text.split())) for text in last]
    assert [verdict.reward for verdict in verdicts] == pytest.approx(expected)
    assert {verdict.status for verdict in verdicts} == {Status.UNCHECKED}


@pytest.mark.usefixtures("environments")
def test_a_conversation_is_judged_as_the_environment_s_own_run_would_do() -> None:
    import random

    task = task_of("verifiers:guess_a_number", select={"limit": 2})
    row = library_rows(task.data)[1]
    number = random.Random(1).randint(1, 99)
    talks = [("50", "no idea", str(number)), ("50", "3"), (str(number),), ("50", "I give up")]
    verdicts = judged(task, [item(turns[-1], row, *turns) for turns in talks])
    assert [verdict.reward for verdict in verdicts] == [3.0 + 3.0, 2.0, 1.0 + 3.0, 2.0]
