"""Turns completions into verdicts: the check, the weighted rewards, their sum."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from openrs_ray.adapters.judging import LIBRARIES
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.answers.published import check_published
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
    kind: str = "math"
    """`answer.kind`"""

    @classmethod
    def of(cls, rewards: Any, kind: str = "math") -> Judge:
        """Judge of a config's section `rewards`."""
        own = ("parameters", "kind")
        given = {one.name: getattr(rewards, one.name) for one in fields(cls) if one.name not in own}
        return cls(**given, parameters=weighted_parameters(rewards), kind=kind)

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

    def _check(self, item: JudgeItem) -> tuple[Status, str | None]:
        if self.kind in LIBRARIES:
            return LIBRARIES[self.kind](item)
        if self.extraction == "published":
            return check_published(item.text, item.gold, self.comparison, for_cosine="cosine" in self.weights)
        return check_answer(
            item.text, item.gold, self.extraction, self.comparison, self.unfinished_reasoning, self.final_form
        )

    def _rewarded(self, item: JudgeItem, verdict: Verdict, counts_as: Status, outside: bool = True) -> Verdict:
        """`outside` false: 0.0 for rewards that run other code, which only a checking process may."""
        seen = RewardInput(
            item.text, item.token_count, item.finish_reason, counts_as, verdict.answer, item.row, item.turns
        )
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
        return cls({task.name: Judge.of(task.rewards, task.answer.kind) for task in tasks})

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
