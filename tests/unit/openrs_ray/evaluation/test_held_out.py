"""Figures of held-out problems by task, and the interval of a mean reward against Student's table and by simulation."""

import numpy as np
import pytest

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.task import Task
from openrs_ray.evaluation.held_out import held_out_scores
from openrs_ray.records import Group, Problem, Status, Verdict
from openrs_ray.stats import mean_interval, student_interval


def task(name: str, kind: str = "math") -> Task:
    return Task(name, Data(path="toy"), Answer(kind=kind), Rewards(), EnvironmentSection())  # type: ignore[arg-type]


def group(name: str, number: int, right: list[bool | None], rewards: list[float] | None = None) -> Group:
    statuses = [Status.TIMEOUT if one is None else Status.CORRECT if one else Status.WRONG for one in right]
    values = rewards or [float(bool(one)) for one in right]
    verdicts = [Verdict(s, {}, v if s.judged else None) for s, v in zip(statuses, values, strict=True)]
    return Group(number, Problem(number, "1+1", (1,), ("2",), name), (), tuple(verdicts))


def test_all_problems_weigh_the_same_whatever_their_task() -> None:
    groups = [group("a", n, [n % 2 == 0, True]) for n in range(6)] + [
        group("b", n, [False, n == 6]) for n in range(6, 9)
    ]
    scores = held_out_scores(groups, [task("a"), task("b")])
    rows = np.array([[v.status is Status.CORRECT for v in each.verdicts] for each in groups], dtype=float)
    assert scores.accuracy == mean_interval(rows)
    assert scores.tasks["a"].interval == mean_interval(rows[:6]) and scores.tasks["b"].interval == mean_interval(
        rows[6:]
    )
    assert [score.problems for score in scores.tasks.values()] == [6, 3]
    assert scores.metrics()["task/b/accuracy"] == pytest.approx(1 / 6) and scores.metrics()["accuracy"] == rows.mean()
    assert str(scores).startswith("accuracy 55.6 % [") and "(a 75.0 % [" in str(scores)


def test_a_single_task_has_the_one_figure_that_it_always_had() -> None:
    scores = held_out_scores([group("", n, [True, False]) for n in range(4)], [task("")])
    assert scores.tasks == {} and scores.accuracy is not None
    assert {*scores.metrics()} == {"accuracy", "low", "high"}


def test_where_nothing_is_right_or_wrong_the_mean_reward_counts() -> None:
    rewards = [[0.5, 1.5], [2.0, 4.0], [-1.0, 0.0], [0.0, 1.0]]
    free = [group("free", n, [False, False], values) for n, values in enumerate(rewards)]
    checked = [group("sums", 4, [True, False]), group("sums", 5, [True, True])]
    scores = held_out_scores([*free, *checked], [task("free", "none"), task("sums")])
    assert scores.accuracy is not None and scores.accuracy.mean == 0.75, "without the other task's problems"
    found = scores.tasks["free"]
    assert (found.figure, found.interval.mean) == ("mean reward", pytest.approx(1.0))
    assert scores.metrics()["task/free/mean_reward"] == pytest.approx(1.0) and "mean reward 1.000 [" in str(scores)
    alone = held_out_scores(
        [group("", n, [False, False], values) for n, values in enumerate(rewards)], [task("", "none")]
    )
    assert alone.accuracy is None and alone.metrics()["mean_reward"] == pytest.approx(1.0)
    assert str(alone).startswith("mean reward 1.000 [")


def test_a_task_of_which_nothing_was_judged_has_no_figure() -> None:
    groups = [group("a", 0, [None, None]), group("b", 1, [True, None]), group("b", 2, [True, True])]
    scores = held_out_scores(groups, [task("a"), task("b")])
    assert {*scores.tasks} == {"b"} and scores.accuracy is not None and scores.accuracy.low < 0.2


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (6, 2.4469), (10, 2.2281), (30, 2.0423), (120, 1.9799)],
)
def test_a_mean_s_interval_is_student_s(freedom: int, quantile: float) -> None:
    """The quantiles are those of any table."""
    values = np.random.default_rng(freedom).normal(3.0, 2.0, freedom + 1)
    found = student_interval(values)
    half = quantile * values.std(ddof=1) / np.sqrt(freedom + 1)
    assert found.high - found.mean == pytest.approx(half, rel=2e-3) and found.mean - found.low == pytest.approx(
        half, rel=2e-3
    )


def test_a_mean_s_interval_covers_what_it_claims() -> None:
    rng = np.random.default_rng(0)
    for size in (3, 8, 40):
        found = [student_interval(rng.normal(0.3, 1.0, size)) for _ in range(2000)]
        assert np.mean([one.low <= 0.3 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
