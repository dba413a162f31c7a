"""Turns completions into verdicts: the check, the weighted rewards, their sum."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.answers.kinds import Check, checker, own_deadline_s, warm_up
from openrs_ray.rewards.libraries.judging import LIBRARIES, library_warm_up
from openrs_ray.rewards.own import OF_ALL, OF_ONE, NotJudged, OwnReward
from openrs_ray.rewards.records import (
    CheckedProgram,
    Comparison,
    GroupItem,
    GroupRewards,
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
    own: Mapping[str, OwnReward] = field(default_factory=dict)
    """Rewards of the user's own, by their names in `weights`."""

    @classmethod
    def of(cls, rewards: Any, answer: Any = None, own: Mapping[str, OwnReward] | None = None) -> Judge:
        """Judge of a config's sections `rewards` and `answer`, with its own rewards."""
        others = ("parameters", "answer", "own")
        given = {one.name: getattr(rewards, one.name) for one in fields(cls) if one.name not in others}
        return cls(**given, parameters=weighted_parameters(rewards), answer=answer, own=own or {})

    def prepare(self, warm_up: Sequence[JudgeItem]) -> None:
        """Load in this process what the checks and the user's own rewards need."""
        self.warm(warm_up)
        self.load_own()

    def warm(self, items: Sequence[JudgeItem]) -> None:
        without_own = replace(self, own={})
        for item in items:
            without_own(item)

    def load_own(self) -> None:
        """After all of ours: the folders of the user's files come first in `sys.path`, and may have a file of any name."""
        for reward in self.own.values():
            reward.prepare()

    def __call__(self, item: JudgeItem) -> Verdict:
        start = time.perf_counter()
        status, answer, passed_share, detail = CheckedProgram(*self._check(item))
        verdict = Verdict(status, {}, None, answer, detail=detail)
        if status.judged or (status is Status.UNPARSEABLE_GOLD and self.unparseable_gold == "reward"):
            try:
                verdict = self._rewarded(item, verdict, status, passed_share)
            except NotJudged as error:
                verdict = replace(verdict, status=Status.ERROR, detail=str(error))
        return replace(verdict, seconds=time.perf_counter() - start)

    def group(self, item: GroupItem) -> GroupRewards | Verdict:
        """Own rewards of all completions of a problem; the verdict of all of them where one fails."""
        start = time.perf_counter()
        try:
            values = {name: one.group(item) for name, one in self.own.items() if one.judges == OF_ALL}
        except NotJudged as error:
            return Verdict(Status.ERROR, {}, None, seconds=time.perf_counter() - start, detail=str(error))
        return GroupRewards(values, time.perf_counter() - start)

    def settle(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        """The pool's verdict; a killed check may count as a wrong answer."""
        if self.unjudged == "wrong" and verdict.status in (Status.TIMEOUT, Status.ERROR):
            return self._rewarded(item, verdict, Status.WRONG, here=True)
        return verdict

    @cached_property
    def _check(self) -> Check:
        return checker(self.answer, self)

    def _rewarded(
        self, item: JudgeItem, verdict: Verdict, counts_as: Status, passed_share: float = 0.0, here: bool = False
    ) -> Verdict:
        """`here`: in no checking process, where other libraries' code must not run; 0.0 for their rewards."""
        judged = counts_as, verdict.answer, passed_share, item.row, item.turns
        seen = RewardInput(item.text, item.token_count, item.finish_reason, *judged)
        values: dict[str, float] = {}
        for name in self.weights:
            if here and name in LIBRARIES:
                values[name] = 0.0
            elif name in SINGLE:
                values[name] = SINGLE[name](seen, parameters=within(self.parameters.get(name), item.max_tokens))
            elif name in self.own and self.own[name].judges == OF_ONE:
                value = self.own[name].single(item, counts_as, verdict.answer)
                if value is None:
                    return replace(verdict, detail=said_none(name))
                values[name] = value
        reward = sum((self.weights[name] * value for name, value in values.items()), 0.0)
        return replace(verdict, rewards=values, reward=reward)


def within(parameters: Any, max_tokens: int | None) -> Any:
    """A reward's parameters in a stage of completions of at most `max_tokens`, which no length of theirs exceeds."""
    return parameters if max_tokens is None or not hasattr(parameters, "within") else parameters.within(max_tokens)


OwnRewards = Mapping[str, Mapping[str, OwnReward]]
"""By task and name."""


def said_none(name: str) -> str:
    return f"{name} did not judge it (it returned None)"


@dataclass(frozen=True)
class Judges:
    """Judges completions, and groups of them, of several tasks."""

    by_task: Mapping[str, Judge]

    @classmethod
    def of(cls, tasks: Sequence[Any], own: OwnRewards | None = None) -> Judges:
        return cls({task.name: Judge.of(task.rewards, task.answer, (own or {}).get(task.name)) for task in tasks})

    def prepare(self, warm_up: Sequence[JudgeItem]) -> None:
        """Load in this process what the checks and the user's own rewards need."""
        for name, judge in self.by_task.items():
            judge.warm([item for item in warm_up if item.task == name])
        for judge in self.by_task.values():
            judge.load_own()

    def __call__(self, item: JudgeItem | GroupItem) -> Verdict | GroupRewards:
        judge = self.by_task[item.task]
        return judge.group(item) if isinstance(item, GroupItem) else judge(item)

    def own_deadline_s(self, item: JudgeItem | GroupItem) -> float:
        """Time that an item's check needs beyond `rewards.deadline_s`."""
        return 0.0 if isinstance(item, GroupItem) else own_deadline_s(self.by_task[item.task].answer, item)

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


def group_item(items: Sequence[JudgeItem], verdicts: Sequence[Verdict]) -> GroupItem | None:
    """The completions of one problem that have a reward so far; None without one."""
    judged = [(item, verdict) for item, verdict in zip(items, verdicts, strict=True) if verdict.reward is not None]
    if not judged:
        return None
    of_problem = items[0]
    return GroupItem(
        texts=tuple(item.text for item, _ in judged),
        token_counts=tuple(item.token_count for item, _ in judged),
        finish_reasons=tuple(item.finish_reason for item, _ in judged),
        statuses=tuple(verdict.status for _, verdict in judged),
        answers=tuple(verdict.answer for _, verdict in judged),
        gold=of_problem.gold,
        problem=of_problem.problem,
        row=of_problem.row,
        task=of_problem.task,
    )


def with_own_group_rewards(
    verdicts: Sequence[Verdict], found: GroupRewards | Verdict, weights: Mapping[str, float]
) -> tuple[Verdict, ...]:
    """Adds own rewards of a group to the verdicts that have a reward; a failure takes it from all of them."""
    finished = list(verdicts)
    judged = [place for place, verdict in enumerate(verdicts) if verdict.reward is not None]
    for number, place in enumerate(judged):
        before = verdicts[place]
        if isinstance(found, Verdict):
            finished[place] = replace(before, status=found.status, rewards={}, reward=None, detail=found.detail)
            continue
        given = {name: several[number] for name, several in found.values.items()}
        values = {name: value for name, value in given.items() if value is not None}
        if none := given.keys() - values.keys():
            finished[place] = replace(before, rewards={}, reward=None, detail=said_none(min(none)))
            continue
        reward = (before.reward or 0.0) + sum(weights[name] * value for name, value in values.items())
        finished[place] = replace(before, rewards={**before.rewards, **values}, reward=reward)
    return tuple(finished)
