"""Figures of a run's own held-out problems: in all and, where there are several tasks, of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from openrs_ray.algorithm.step_metrics import correctness
from openrs_ray.config.task import Task
from openrs_ray.records import Group
from openrs_ray.stats import Interval, TaskScore, mean_interval, student_interval


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    accuracy: Interval | None
    """Over the problems of all tasks with right and wrong answers, each of which weighs the same; None without any."""
    tasks: dict[str, TaskScore] = field(default_factory=dict)
    """By name, of those of which anything was judged; none for a single task that has an accuracy."""

    def metrics(self) -> dict[str, float]:
        """Example: {"accuracy": 0.5, "low": 0.4, "high": 0.6, "task/sums/accuracy": 0.5, "task/sums/low": 0.4, ...}"""
        figures = _bounds("accuracy", self.accuracy, "") if self.accuracy else {}
        for name, score in self.tasks.items():
            figures |= _bounds(score.figure.replace(" ", "_"), score.interval, f"task/{name}/" if name else "")
        return figures

    def __str__(self) -> str:
        """Example: "accuracy 50.0 % [40.0, 60.0] (sums 60.0 % [45.0, 75.0], essays mean reward 0.412 [0.350, 0.474])" """
        several = ", ".join(f"{name} {_named(score)}".strip() for name, score in self.tasks.items())
        return f"accuracy {self.accuracy}{f' ({several})' if several else ''}" if self.accuracy else several


def _named(score: TaskScore) -> str:
    return str(score) if score.figure == "accuracy" else f"{score.figure} {score}"


def _bounds(name: str, interval: Interval, prefix: str) -> dict[str, float]:
    return {f"{prefix}{name}": interval.mean, f"{prefix}low": interval.low, f"{prefix}high": interval.high}


def held_out_scores(groups: Sequence[Group], tasks: Sequence[Task]) -> HeldOutScores:
    """ValueError where a single task has nothing judged."""
    checked = {task.name for task in tasks if task.right_or_wrong}
    right_or_wrong = [group for group in groups if group.problem.task in checked]
    if len(tasks) == len(checked) == 1:
        return HeldOutScores(mean_interval(correctness(groups)))
    scores = {task.name: _score(task, [group for group in groups if group.problem.task == task.name]) for task in tasks}
    correct = correctness(right_or_wrong)
    overall = mean_interval(correct) if right_or_wrong and not np.isnan(correct).all() else None
    return HeldOutScores(overall, {name: score for name, score in scores.items() if score})


def _score(task: Task, groups: Sequence[Group]) -> TaskScore | None:
    """None where nothing was judged."""
    if task.right_or_wrong:
        correct = correctness(groups)
        judged = len(groups) and not np.isnan(correct).all()
        return TaskScore("accuracy", mean_interval(correct), len(groups)) if judged else None
    rewards = [group.rewards() for group in groups]
    means = np.array([float(np.nanmean(values)) for values in rewards if not np.isnan(values).all()])
    return TaskScore("mean reward", student_interval(means), len(groups)) if len(means) > 1 else None
