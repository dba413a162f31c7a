"""The reward pool as an actor: completions in, verdicts out, in processes that a deadline can end.

One actor owns all checking processes of its node. It is asynchronous: many calls wait at once, and each returns as soon
as its own items are judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from openrs_ray.config import schema as config
from openrs_ray.records import Verdict
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.rewards.table import check_reward_names
from openrs_ray.run.spans import traced


class RewardPool:
    """Life: processes start with the actor; `close` ends them, as does the end of the actor's process."""

    def __init__(self, rewards: config.Rewards) -> None:
        check_reward_names(rewards)
        self._judge = Judge.of(rewards)
        self._pool: CheckPool[JudgeItem] = CheckPool(
            self._judge,
            processes=rewards.processes,
            deadline_s=rewards.deadline_s,
            memory_gib=rewards.memory_gib,
            warm_up=WARM_UP,
        )

    @traced("judge")
    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """The verdicts in the items' order. Raises RunError when no checking process can be started."""
        verdicts = await self._pool.judge_many(items)
        return [self._judge.settle(item, verdict) for item, verdict in zip(items, verdicts, strict=True)]

    async def counts(self) -> Mapping[str, int]:
        """checks, timeouts, errors and replaced processes so far."""
        return asdict(self._pool.counts())

    async def close(self) -> None:
        self._pool.close()
