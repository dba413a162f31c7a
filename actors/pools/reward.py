"""The reward pool as an asynchronous actor. It makes the texts of what it judges: no other process of a run decodes rollouts."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from pydantic import SecretStr
from ray.exceptions import RayError, RayTaskError

from actors.pools.messages import Judged, SampledItem
from openrs_ray.common.foreign import why
from openrs_ray.config.task import Task
from openrs_ray.data.completions import Texts
from openrs_ray.preparation.judges import unusable
from openrs_ray.records import Verdict
from openrs_ray.rewards.judge import Judges, OwnRewards, warm_up_of
from openrs_ray.rewards.judge_model.client import Address, Unjudged
from openrs_ray.rewards.judge_model.judges import ModelJudges, probe
from openrs_ray.rewards.judge_model.replies import Spending
from openrs_ray.rewards.judge_model.settings import JudgeSettings
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import GroupItem, GroupRewards, JudgeItem
from openrs_ray.rewards.registry import check_reward_names
from openrs_ray.run.spans import traced

_KEPT_LINES = 1000

Decode = Callable[[Sequence[SampledItem]], list[Texts]]


@dataclass(frozen=True)
class JudgeAccess:
    """Where the reward pool finds judge models."""

    folder: Path | None = None
    """The run's, for replies that are paid for."""
    keys: Mapping[str, SecretStr] = field(default_factory=dict)
    """By task."""
    servers: Mapping[str, str] = field(default_factory=dict)
    """Names of actors that serve, by task: with a handle among its arguments Ray might not restart the pool."""


class RewardPool:
    """Judges completions in checking processes, which end with `close` or the actor's process."""

    def __init__(
        self,
        tasks: Sequence[Task],
        access: JudgeAccess = JudgeAccess(),
        own: OwnRewards | None = None,
        decode: Decode | None = None,
    ) -> None:
        """Take processes, deadline and memory limit from the first task. `decode` is needed for rollouts only, not for texts."""
        for task in tasks:
            check_reward_names(task.rewards.weights)
        self._tasks, self._access, self._decode = tasks, access, decode
        self._judges = Judges.of(tasks, own)
        self._printed: deque[str] = deque(maxlen=_KEPT_LINES)
        addresses = {name: address_of(server) for name, server in access.servers.items()}
        self._models = ModelJudges(tasks, access.folder, access.keys, addresses)
        rewards = tasks[0].rewards
        self._pool: CheckPool[JudgeItem | GroupItem, Verdict | GroupRewards] = CheckPool(
            self._judges,
            processes=rewards.processes,
            deadline_s=rewards.deadline_s,
            memory_gib=rewards.memory_gib,
            prepare=partial(self._judges.prepare, warm_up_of(tasks)),
            own_deadline_s=self._judges.own_deadline_s,
            printed=self._printed.append,
        )

    @traced("judge")
    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Verdicts in order. RunError when no checking process can be started."""
        verdicts: list[Any] = await self._pool.judge_many(items)
        return [self._judges.settle(item, verdict) for item, verdict in zip(items, verdicts, strict=True)]

    async def judge_rollouts(self, rollouts: Sequence[SampledItem]) -> list[Judged]:
        """Judge rollouts: verdicts and texts, in order. RunError as for `judge`."""
        texts = await self.texts(rollouts)
        items = [rollout.decoded(own) for rollout, own in zip(rollouts, texts, strict=True)]
        return [Judged(*each) for each in zip(await self.judge(items), texts, strict=True)]

    async def texts(self, rollouts: Sequence[SampledItem]) -> list[Texts]:
        """Texts of rollouts, in order; these need not be judged."""
        if self._decode is None:
            raise ValueError("this reward pool was given no way to decode rollouts")
        return await asyncio.to_thread(self._decode, rollouts)

    @traced("own_group_rewards")
    async def reward_group(self, item: GroupItem) -> GroupRewards | Verdict:
        """The user's own rewards of the completions of a problem; a verdict where they failed."""
        return (await self._pool.judge_many([item]))[0]

    async def printed(self) -> list[str]:
        """Lines that own rewards have printed since the last call; of many the last ones."""
        return [self._printed.popleft() for _ in range(len(self._printed))]

    @traced("judge_model")
    async def ask_judge(self, item: JudgeItem, verdict: Verdict) -> tuple[Verdict, Spending]:
        """The verdict with the reward of a judge model, and the costs so far. Waits for nobody else's."""
        return await self._models.single(item, verdict), self._models.spent

    @traced("judge_group")
    async def ask_judge_of_group(
        self, items: Sequence[JudgeItem], verdicts: Sequence[Verdict]
    ) -> tuple[tuple[Verdict, ...], Spending]:
        """The same for all completions of a problem, compared with each other."""
        return await self._models.relative(items, verdicts), self._models.spent

    async def probe_served(self) -> None:
        """UserError when a served judge model gives no judgement of an example."""
        for task in self._tasks:
            judge = task.rewards.judge
            if judge.served:
                key, address = self._access.keys[task.name], address_of(self._access.servers[task.name])
                try:
                    await probe(JudgeSettings.of(judge), task.rewards.weights, key.get_secret_value(), address)
                except Unjudged as error:
                    raise unusable(judge, error) from error

    async def counts(self) -> Mapping[str, int]:
        """Checks, timeouts, errors and replaced processes so far."""
        return asdict(self._pool.counts())

    async def close(self) -> None:
        self._pool.close()
        await self._models.close()


def address_of(server: str) -> Address:
    """The address of a served model, for clients in other actors. ConnectionError when its actor or server is lost."""

    async def url() -> str:
        try:
            return str(await ray.get_actor(server).url.remote())
        except RayTaskError as error:
            raise ConnectionError(str(error.cause)) from error
        except (RayError, ValueError) as error:  # no actor of that name
            raise ConnectionError(f"the judge's server is lost: {why(error)}") from error

    return url
