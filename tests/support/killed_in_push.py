"""`python killed_in_push.py N RECIPE ...`: the training command, killed by SIGKILL in the middle of push N."""

import asyncio
import os
import signal
import sys

from actors.loop.push import WeightPush
from actors.rollout.supervisor import Replica
from launch.train import main

last = int(sys.argv[1])
broadcast = WeightPush._broadcast
pushes = 0


async def _broadcast_or_die(self: WeightPush, workers: list[Replica]) -> list[int]:
    global pushes
    pushes += 1
    if pushes == last:
        asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGKILL)
        await asyncio.gather(
            self._learners.send([worker.place for worker in workers]), asyncio.sleep(60)
        )  # the sender is at it, the engines are not
    return await broadcast(self, workers)


WeightPush._broadcast = _broadcast_or_die  # type: ignore[method-assign]
sys.exit(main(sys.argv[2:]))
