"""Rewards that a judge model gives: to one completion, or to all of a problem beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge_model.client import JudgeClient, Unjudged
from openrs_ray.rewards.judge_model.prompts import fill, numbered, shown, shuffled
from openrs_ray.rewards.judge_model.scores import ranking, score_by_key, score_by_pattern, scores
from openrs_ray.rewards.judge_model.settings import RELATIVE_NAME, SINGLE_NAME, JudgeSettings

ALONE = 0.5
"""Of a completion that has no other to be compared with."""


@dataclass(frozen=True)
class ModelJudge:
    """Adds the rewards `judge` and `judge_relative` to verdicts that have a reward; without judgement they lose it."""

    client: JudgeClient
    weights: Mapping[str, float]

    @property
    def settings(self) -> JudgeSettings:
        return self.client.settings

    async def single(self, verdict: Verdict, problem: str, gold: Sequence[str], text: str) -> Verdict:
        """The verdict with the reward `judge`."""
        if verdict.reward is None or SINGLE_NAME not in self.weights:
            return verdict
        seen = shown(text, self.settings.show_reasoning)
        prompt = fill(self.settings.template, {"problem": problem, "gold": _first(gold), "completion": seen})
        try:
            return _with(verdict, SINGLE_NAME, self.weights[SINGLE_NAME], await self.client.ask(prompt, self._score))
        except Unjudged as error:
            return _without(verdict, error)

    async def relative(
        self, verdicts: Sequence[Verdict], problem: str, gold: Sequence[str], texts: Sequence[str]
    ) -> tuple[Verdict, ...]:
        """A problem's verdicts with the reward `judge_relative` where they had a reward."""
        places = [place for place, verdict in enumerate(verdicts) if verdict.reward is not None]
        if not places or RELATIVE_NAME not in self.weights:
            return tuple(verdicts)
        seen = {place: shown(texts[place], self.settings.show_reasoning) for place in places}
        finished = list(verdicts)
        try:
            values = await self._compared(problem, gold, [*dict.fromkeys(seen.values())])
        except Unjudged as error:
            for place in places:
                finished[place] = _without(verdicts[place], error)
        else:
            for place in places:
                value = values[seen[place]]
                finished[place] = _with(verdicts[place], RELATIVE_NAME, self.weights[RELATIVE_NAME], value)
        return tuple(finished)

    async def _compared(self, problem: str, gold: Sequence[str], texts: list[str]) -> dict[str, float]:
        """Values of different texts, means over the orders in which they are shown. Raises Unjudged."""
        if len(texts) == 1:
            return {texts[0]: ALONE}
        orders = [shuffled(texts, problem, number) for number in range(self.settings.relative_orders)]
        values = await asyncio.gather(*(self._in_order(problem, gold, texts, order) for order in orders))
        return {text: sum(each[text] for each in values) / len(values) for text in texts}

    async def _in_order(
        self, problem: str, gold: Sequence[str], texts: list[str], order: list[int]
    ) -> dict[str, float]:
        in_order = [texts[place] for place in order]
        given = {"problem": problem, "gold": _first(gold), "completions": numbered(in_order)}
        read = partial(self._all, count=len(texts))
        return dict(
            zip(in_order, await self.client.ask(fill(self.settings.comparing_template, given), read), strict=True)
        )

    def _score(self, reply: str) -> float:
        how, low, high = self.settings, self.settings.low, self.settings.high
        if how.score_key is not None:
            return score_by_key(reply, how.score_key, low, high)
        return score_by_pattern(reply, how.score_pattern, low, high)

    def _all(self, reply: str, count: int) -> list[float]:
        if self.settings.relative == "ranking":
            return ranking(reply, count)
        return scores(reply, count, self.settings.low, self.settings.high)


def _first(gold: Sequence[str]) -> str:
    return gold[0] if gold else ""


def _with(verdict: Verdict, name: str, weight: float, value: float) -> Verdict:
    reward = (verdict.reward or 0.0) + weight * value
    return replace(verdict, rewards={**verdict.rewards, name: value}, reward=reward)


def _without(verdict: Verdict, error: Unjudged) -> Verdict:
    """Not judged, never 0: a judge that fails says nothing about the completion."""
    assert error.status in (Status.TIMEOUT, Status.ERROR)
    return replace(verdict, status=error.status, rewards={}, reward=None, detail=error.detail[:500])
