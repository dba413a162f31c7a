"""From drawn problems to finished groups: sampling and judging overlap, completion by completion."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from actors.cluster.deadlines import within
from actors.rollout.pool import EnginePool
from actors.rollout.worker import Request
from openrs_ray.algorithm.unusable import without_judgement
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Completion, Group, Problem, Verdict
from openrs_ray.rewards.judge import judge_group
from openrs_ray.rewards.records import JudgeItem

_POOL_PAUSE_S = 2.0
"""Before a pool that was lost is asked again."""

Decode = Callable[[Sequence[np.ndarray]], list[str]]
"""Token ids of several completions to their texts, what the chat template wrote of them included."""


class Collector:
    """Samples and judges a set of problems at a time, or one beside others.

    A batch of completions goes to the reward pool the moment it leaves the engine, so that checking hides behind sampling.
    """

    def __init__(
        self,
        workers: EnginePool,
        reward_pool: Any,
        decode: Decode,
        judge_deadline_s: float,
        weights: Mapping[str, float],
        report: Callable[[str], None],
    ) -> None:
        """`reward_pool`: an actor that Ray starts again when it dies; `report` is told when that happens.

        `weights`: of the rewards, for those that compare the completions of a group.
        """
        self._workers = workers
        self._reward_pool = reward_pool
        self._decode = decode
        self._judge_deadline_s = judge_deadline_s
        self._weights = weights
        self._report = report
        self._pool_lost = False

    async def collect(
        self, drawn: Sequence[tuple[int, Problem]], requests: Sequence[Request], version: int
    ) -> list[Group]:
        """The group of each drawn (position, problem), in order, sampled by policy `version` and nothing else meanwhile.

        Raises:
            RunError: a worker or the reward pool failed, or one of them missed its deadline.
        """
        return await self._groups(drawn, requests, self._workers.completions(requests))

    async def group(self, position: int, problem: Problem, requests: Sequence[Request]) -> Group:
        """One group, sampled beside others and through pushes. Raises RunError as `collect` does."""
        (group,) = await self._groups([(position, problem)], requests, self._sampled(requests))
        return group

    async def _sampled(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        for completion in asyncio.as_completed([self._workers.sample(request) for request in requests]):
            yield await completion

    async def _groups(
        self,
        drawn: Sequence[tuple[int, Problem]],
        requests: Sequence[Request],
        sampled: AsyncIterator[Completion],
    ) -> list[Group]:
        gold = {position: problem.gold for position, problem in drawn}
        completions: dict[tuple[int, int], Completion] = {}
        judging: list[asyncio.Task[list[Verdict]]] = []
        order: list[tuple[int, int]] = []
        try:
            async for completion in sampled:
                completions[completion.position, completion.sample] = completion
                order.append((completion.position, completion.sample))
                judging.append(asyncio.create_task(self._judge([completion], gold)))
                for task in judging:
                    if task.done():
                        task.result()  # a reward pool that is lost is not worth sampling on for
            judged = [verdict for verdicts in await asyncio.gather(*judging) for verdict in verdicts]
        finally:
            for task in judging:
                task.cancel()
        missing = {(request.position, request.sample) for request in requests} - completions.keys()
        if missing:
            raise RunError(
                f"the rollout workers lost {len(missing)} of {len(requests)} completions: {sorted(missing)[:5]}"
            )
        verdicts = dict(zip(order, judged, strict=True))
        return [self._group(position, problem, completions, verdicts) for position, problem in drawn]

    async def _judge(self, batch: list[Completion], gold: dict[int, tuple[str, ...]]) -> list[Verdict]:
        texts = self._decode([completion.token_ids for completion in batch])
        items = [
            JudgeItem(text, len(completion.token_ids), completion.finish_reason, gold[completion.position])
            for text, completion in zip(texts, batch, strict=True)
        ]
        what = f"judge {len(items)} completions"
        return await within(self._judge_deadline_s, "the reward pool", what, self._verdicts(items, what))

    async def _verdicts(self, items: Sequence[JudgeItem], what: str) -> list[Verdict]:
        """From the pool, or from the one that Ray starts in its place: judging twice does no harm."""
        while True:
            asked = self._reward_pool.judge.remote(items)
            try:
                verdicts: list[Verdict] = await within(self._judge_deadline_s, "the reward pool", what, asked)
                self._pool_lost = False
                return verdicts
            except Lost as error:
                if not self._pool_lost:
                    self._pool_lost = True
                    self._report(f"the reward pool is lost and asked again until it is back: {error}")
                await asyncio.sleep(_POOL_PAUSE_S)

    def _group(
        self,
        position: int,
        problem: Problem,
        completions: dict[tuple[int, int], Completion],
        verdicts: dict[tuple[int, int], Verdict],
    ) -> Group:
        keys = sorted(key for key in completions if key[0] == position)
        ours = tuple(completions[key] for key in keys)
        lengths = [len(completion.token_ids) for completion in ours]
        usable = [without_judgement(completions[key], verdicts[key]) for key in keys]
        return Group(position, problem, ours, judge_group(usable, lengths, self._weights))
