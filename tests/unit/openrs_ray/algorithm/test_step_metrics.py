"""Figures of a step over tasks with and without golds."""

import math

import numpy as np

from openrs_ray.algorithm.step_metrics import step_metrics, task_metrics
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan


def group(task: str, *statuses: Status, position: int = 0) -> Group:
    ids, logprobs = np.arange(3, dtype=np.int32), np.zeros(3, dtype=np.float32)
    spans = (VersionSpan(0, 0, 3),)
    rollouts = (Rollout.of([Completion(position, i, ids, logprobs, "stop", spans, 0)]) for i in range(len(statuses)))
    verdicts = (Verdict(status, {}, 0.5 if status.judged else None) for status in statuses)
    return Group(position, Problem(0, "6+6", (1, 2), (), task), tuple(rollouts), tuple(verdicts))


def test_completions_without_a_gold_are_neither_right_nor_wrong() -> None:
    sums = group("sums", Status.CORRECT, Status.CORRECT, Status.WRONG, Status.NO_ANSWER, Status.TIMEOUT)
    poems = group("poems", *[Status.UNCHECKED] * 5)
    mixed = step_metrics([sums, poems])
    assert (mixed["accuracy"], mixed["no_answer_share"]) == (0.5, 0.25)
    assert mixed["reward"] == 0.5 and mixed["timeouts"] == 1
    by_task = task_metrics([sums, poems])
    assert by_task["task/sums/accuracy"] == 0.5 and math.isnan(by_task["task/poems/accuracy"])
    assert math.isnan(step_metrics([poems])["accuracy"])
    lost = task_metrics([sums, group("code", Status.TIMEOUT, Status.ERROR)])
    assert math.isnan(lost["task/code/accuracy"]) and math.isnan(lost["task/code/reward"]), "nothing was judged"
