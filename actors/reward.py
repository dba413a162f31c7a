"""The reward pool as an asynchronous actor."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from openrs_ray.config.task import Task
from openrs_ray.records import Verdict
from openrs_ray.rewards.judge import Judges, warm_up_of
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.rewards.registry import check_reward_names
from openrs_ray.run.spans import traced


class RewardPool:
    """Judges completions in checking processes, which end with `close` or the actor's process."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Processes, deadline and memory limit are those of the first task."""
        for task in tasks:
            check_reward_names(task.rewards.weights)
        self._judges = Judges.of(tasks)
        rewards = tasks[0].rewards
        self._pool: CheckPool[JudgeItem, Verdict] = CheckPool(
            self._judges,
            processes=rewards.processes,
            deadline_s=rewards.deadline_s,
            memory_gib=rewards.memory_gib,
            warm_up=warm_up_of(tasks),
        )

    @traced("judge")
    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Verdicts in order. RunError when no checking process can be started."""
        verdicts = await self._pool.judge_many(items)
        return [self._judges.settle(item, verdict) for item, verdict in zip(items, verdicts, strict=True)]

    async def counts(self) -> Mapping[str, int]:
        """Checks, timeouts, errors and replaced processes so far."""
        return asdict(self._pool.counts())

    async def close(self) -> None:
        self._pool.close()
