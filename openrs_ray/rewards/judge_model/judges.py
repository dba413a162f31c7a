"""The judge models of a run's tasks, with one file of replies and one account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge_model.client import Address, JudgeClient, Unjudged
from openrs_ray.rewards.judge_model.judge import ModelJudge
from openrs_ray.rewards.judge_model.replies import FILE, Replies, Spending
from openrs_ray.rewards.judge_model.settings import RELATIVE_NAME, SINGLE_NAME, JudgeSettings
from openrs_ray.rewards.records import JudgeItem

_PROBE_RETRIES = 1
_PROBLEM, _GOLD, _RESPONSES = "What is 2 + 2?", ("4",), ("2 + 2 = 4, so the answer is 4.", "The answer is 5.")


class ModelJudges:
    """Judges of several tasks; those of tasks without a judge model leave verdicts as they are."""

    def __init__(
        self,
        tasks: Sequence[Any],
        folder: Path | None,
        keys: Mapping[str, SecretStr],
        addresses: Mapping[str, Address],
    ) -> None:
        """`folder`: the run's, for the replies. By task: keys of endpoints and addresses of served models."""
        replies = Replies(folder and folder / FILE)
        self._replies = replies
        self._by_task = {
            task.name: ModelJudge(
                JudgeClient(
                    JudgeSettings.of(task.rewards.judge),
                    replies,
                    keys[task.name].get_secret_value() if task.name in keys else None,
                    addresses.get(task.name),
                ),
                task.rewards.weights,
            )
            for task in tasks
            if task.rewards.judge.model is not None
        }

    @property
    def spent(self) -> Spending:
        return replace(self._replies.spent)

    async def single(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        """The verdict with the reward `judge`, if its task has one."""
        judge = self._by_task.get(item.task)
        return verdict if judge is None else await judge.single(verdict, item.problem, item.gold, item.text)

    async def relative(self, items: Sequence[JudgeItem], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """The verdicts of a group with the reward `judge_relative`, if its task has one."""
        judge = self._by_task.get(items[0].task)
        if judge is None:
            return tuple(verdicts)
        return await judge.relative(verdicts, items[0].problem, items[0].gold, [item.text for item in items])

    async def close(self) -> None:
        await asyncio.gather(*(judge.client.close() for judge in self._by_task.values()))


async def probe(
    settings: JudgeSettings, weights: Mapping[str, float], key: str | None, address: Address | None = None
) -> None:
    """One small question for each reward that is asked for. Raises Unjudged."""
    brief = replace(
        settings,
        retries=min(settings.retries, _PROBE_RETRIES),
        deadline_s=min(settings.deadline_s, (1 + _PROBE_RETRIES) * settings.timeout_s),
    )
    client = JudgeClient(brief, Replies(None), key, address)
    judge = ModelJudge(client, weights)
    right = Verdict(Status.CORRECT, {}, 0.0)
    try:
        if SINGLE_NAME in weights:
            _check(await judge.single(right, _PROBLEM, _GOLD, _RESPONSES[0]))
        if RELATIVE_NAME in weights:
            _check((await judge.relative([right, right], _PROBLEM, _GOLD, _RESPONSES))[0])
    finally:
        await client.close()


def _check(verdict: Verdict) -> None:
    if verdict.reward is None:
        raise Unjudged(verdict.status, verdict.detail)
