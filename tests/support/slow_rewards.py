"""`python slow_rewards.py RECIPE ...`: the training command with a reward pool that takes two seconds for every call."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial

import actors.loop.system as system
from actors.pools.reward import RewardPool
from launch.train import main
from openrs_ray.records import Verdict
from openrs_ray.rewards.records import JudgeItem


class SlowPool(RewardPool):
    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        await asyncio.sleep(2.0)
        return await super().judge(items)


if __name__ == "__main__":
    system.System = partial(system.System, reward_class=SlowPool)  # type: ignore[assignment, misc]
    sys.exit(main(sys.argv[1:]))
