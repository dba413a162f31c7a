"""Turns completions into verdicts: the check, the weighted rewards, their sum."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.answers.kinds import Check, checker, warm_up
from openrs_ray.rewards.libraries.judging import LIBRARIES, library_warm_up
from openrs_ray.rewards.records import (
    Comparison,
    JudgeItem,
    RewardExtraction,
    RewardInput,
    UnfinishedReasoning,
    Unjudged,
)
from openrs_ray.rewards.registry import GROUP, SINGLE, weighted_parameters

WARM_UP = tuple(
    JudgeItem(
        rf"We solve the equation and put what follows into a box. </think> \boxed{{{answer}}}", 9, "stop", (gold,)
    )
    for answer, gold in ((r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"), ("(x+1)^2", "x^2 + 2x + 1"), (r"\{1, 2\}", "1,2"))
)
"""They load math-verify's parser, SymPy and, by their length, the language detector."""


def warm_up_of(tasks: Sequence[Any]) -> list[JudgeItem]:
    """Items that load what the checks of the tasks need."""
    items = ((task, warm_up(task.answer) if task.answer.kind != "math" else WARM_UP) for task in tasks)
    own = [replace(item, task=task.name) for task, several in items for item in several]
    return [*own, *(item for task in tasks for item in library_warm_up(task))]


@dataclass(frozen=True)
class Judge:
    """Judges single completions, in the checking processes.

    A completion that cannot be judged has no reward, unless `unparseable_gold` or `unjudged` gives it one.
    """

    weights: Mapping[str, float]
    """By name, those of group rewards too."""
    extraction: RewardExtraction
    comparison: Comparison = "gold_first"
    unparseable_gold: Literal["skip", "reward"] = "skip"
    unjudged: Unjudged = "skip"
    unfinished_reasoning: UnfinishedReasoning = "no_answer"
    final_form: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Defaults where missing."""
    answer: Any = None
    """A config's section `answer`; None for mathematics."""

    @classmethod
    def of(cls, rewards: Any, answer: Any = None) -> Judge:
        """Judge of a config's sections `rewards` and `answer`."""
        own = ("parameters", "answer")
        given = {one.name: getattr(rewards, one.name) for one in fields(cls) if one.name not in own}
        return cls(**given, parameters=weighted_parameters(rewards), answer=answer)

    def __call__(self, item: JudgeItem) -> Verdict:
        start = time.perf_counter()
        status, answer = self._check(item)
        verdict = Verdict(status, {}, None, answer)
        if status.judged or (status is Status.UNPARSEABLE_GOLD and self.unparseable_gold == "reward"):
            verdict = self._rewarded(item, verdict, status)
        return replace(verdict, seconds=time.perf_counter() - start)

    def settle(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        """The pool's verdict; a killed check may count as a wrong answer."""
        if self.unjudged == "wrong" and verdict.status in (Status.TIMEOUT, Status.ERROR):
            return self._rewarded(item, verdict, Status.WRONG, outside=False)
        return verdict

    @cached_property
    def _check(self) -> Check:
        return checker(self.answer, self)

    def _rewarded(self, item: JudgeItem, verdict: Verdict, counts_as: Status, outside: bool = True) -> Verdict:
        """`outside` false: 0.0 for rewards that run other code, which only a checking process may."""
        judged = (counts_as, verdict.answer, item.row, item.turns)
        seen = RewardInput(item.text, item.token_count, item.finish_reason, *judged)
        single = [name for name in self.weights if name in SINGLE]
        values = {
            name: SINGLE[name](seen, parameters=self.parameters.get(name)) if outside or name not in LIBRARIES else 0.0
            for name in single
        }
        reward = sum((self.weights[name] * value for name, value in values.items()), 0.0)
        return replace(verdict, rewards=values, reward=reward)


@dataclass(frozen=True)
class Judges:
    """Judges completions of several tasks."""

    by_task: Mapping[str, Judge]

    @classmethod
    def of(cls, tasks: Sequence[Any]) -> Judges:
        return cls({task.name: Judge.of(task.rewards, task.answer) for task in tasks})

    def __call__(self, item: JudgeItem) -> Verdict:
        return self.by_task[item.task](item)

    def settle(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        return self.by_task[item.task].settle(item, verdict)


def judge_group(
    verdicts: Sequence[Verdict],
    token_counts: Sequence[int],
    weights: Mapping[str, float],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Verdict, ...]:
    """Adds the group rewards to the verdicts of one problem that have a reward."""
    judged = [place for place, verdict in enumerate(verdicts) if verdict.reward is not None]
    lengths = [token_counts[place] for place in judged]
    correct = [verdicts[place].status in (Status.CORRECT, Status.UNPARSEABLE_GOLD) for place in judged]
    finished = list(verdicts)
    for name in (name for name in weights if name in GROUP and judged):
        values = GROUP[name](lengths, correct, parameters=(parameters or {}).get(name))
        for place, value in zip(judged, values, strict=True):
            before = finished[place]
            reward = (before.reward or 0.0) + weights[name] * value
            finished[place] = replace(before, rewards={**before.rewards, name: value}, reward=reward)
    return tuple(finished)
