"""`python unstarted_engines.py RECIPE ...`: the training command with engines that never start."""

import asyncio
import functools
import sys

import actors.loop.system
from actors.rollout.worker import RolloutWorker
from launch.train import main


class UnstartedWorker(RolloutWorker):
    async def start(self) -> None:
        await asyncio.sleep(3600)


if __name__ == "__main__":
    actors.loop.system.System = functools.partial(  # type: ignore[misc,assignment]
        actors.loop.system.System, worker_class=UnstartedWorker
    )
    sys.exit(main(sys.argv[1:]))
