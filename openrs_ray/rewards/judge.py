"""From completions to verdicts: the accuracy check, every weighted reward, their weighted sum.

In two steps: a completion is judged by itself as soon as it is sampled (`Judge`, in the checking processes); what compares it
with the others of its group is added when the group is complete (`judge_group`, pure and cheap).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.accuracy import check_answer
from openrs_ray.rewards.published import check_published
from openrs_ray.rewards.records import (
    Comparison,
    JudgeItem,
    RewardExtraction,
    RewardInput,
    UnfinishedReasoning,
    Unjudged,
)
from openrs_ray.rewards.table import GROUP_REWARDS, REWARDS

if TYPE_CHECKING:  # the checking processes start without pydantic
    from openrs_ray.config import schema as config

WARM_UP = tuple(
    JudgeItem(
        rf"We solve the equation and put what follows into a box. </think> \boxed{{{answer}}}", 9, "stop", (gold,)
    )
    for answer, gold in ((r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"), ("(x+1)^2", "x^2 + 2x + 1"), (r"\{1, 2\}", "1,2"))
)
"""What a process judges before its first item: the first use of math-verify's parser and SymPy takes a second, the
first text that is long enough for the language reward's detector half a second."""


@dataclass(frozen=True)
class Judge:
    """Judges one completion; as the checking processes are given it.

    The verdict is without reward when the check could not judge; an unparseable gold is paid for where that is asked. A
    check that does not end has its verdict from outside: `settle` pays for it where that is asked.
    """

    weights: Mapping[str, float]
    """By name; those of group rewards are left to `judge_group`."""
    extraction: RewardExtraction
    comparison: Comparison = "gold_first"
    unparseable_gold: Literal["skip", "reward"] = "skip"
    unjudged: Unjudged = "skip"
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the rewards that have some, by the reward's name."""
    unfinished_reasoning: UnfinishedReasoning = "no_answer"
    final_form: bool = False

    @classmethod
    def of(cls, rewards: config.Rewards) -> Judge:
        sections = {name: getattr(rewards, name, None) for name in rewards.weights}
        parameters = {name: section.model_dump() for name, section in sections.items() if section is not None}
        return cls(
            dict(rewards.weights),
            rewards.extraction,
            rewards.comparison,
            rewards.unparseable_gold,
            rewards.unjudged,
            parameters,
            rewards.unfinished_reasoning,
            rewards.final_form,
        )

    def __call__(self, item: JudgeItem) -> Verdict:
        start = time.perf_counter()
        status, answer = self._check(item)
        verdict = Verdict(status, {}, None, answer)
        if status.judged or (status is Status.UNPARSEABLE_GOLD and self.unparseable_gold == "reward"):
            verdict = self._rewarded(item, verdict, status)
        return replace(verdict, seconds=time.perf_counter() - start)

    def settle(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        """The verdict, with the rewards of a wrong answer where the check did not end and that is what it counts as."""
        if self.unjudged == "wrong" and verdict.status in (Status.TIMEOUT, Status.ERROR):
            return self._rewarded(item, verdict, Status.WRONG)
        return verdict

    def _check(self, item: JudgeItem) -> tuple[Status, str | None]:
        if self.extraction == "published":
            return check_published(item.text, item.gold, self.comparison, for_cosine="cosine" in self.weights)
        return check_answer(
            item.text, item.gold, self.extraction, self.comparison, self.unfinished_reasoning, self.final_form
        )

    def _rewarded(self, item: JudgeItem, verdict: Verdict, counts_as: Status) -> Verdict:
        seen = RewardInput(item.text, item.token_count, item.finish_reason, counts_as, verdict.answer)
        single = [name for name in self.weights if name in REWARDS]
        values = {name: REWARDS[name](seen, **self.parameters.get(name, {})) for name in single}
        reward = sum((self.weights[name] * value for name, value in values.items()), 0.0)
        return replace(verdict, rewards=values, reward=reward)


def judge_group(
    verdicts: Sequence[Verdict], token_counts: Sequence[int], weights: Mapping[str, float]
) -> tuple[Verdict, ...]:
    """The verdicts of one problem's completions, with the rewards that compare them added to those that have a reward."""
    names = [name for name in weights if name in GROUP_REWARDS]
    judged = [place for place, verdict in enumerate(verdicts) if verdict.reward is not None]
    finished = list(verdicts)
    for name in names if judged else ():
        lengths = [token_counts[place] for place in judged]
        correct = [verdicts[place].status in (Status.CORRECT, Status.UNPARSEABLE_GOLD) for place in judged]
        for place, value in zip(judged, GROUP_REWARDS[name](lengths, correct), strict=True):
            before = finished[place]
            reward = (before.reward or 0.0) + weights[name] * value
            finished[place] = replace(before, rewards={**before.rewards, name: value}, reward=reward)
    return tuple(finished)
