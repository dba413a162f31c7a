"""`python killed_in_push.py N RECIPE ...`: the training command, killed by SIGKILL in the middle of push N."""

import asyncio
import os
import signal
import sys

from actors.weights.broadcast import Broadcast
from actors.weights.transport import Ends
from launch.train import main

last = int(sys.argv[1])
transfer = Broadcast.transfer
pushes = 0


async def _transfer_or_die(self: Broadcast, ends: Ends) -> list[int]:
    global pushes
    pushes += 1
    if pushes == last:
        asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGKILL)
        # The sender is at it, the engines are not.
        await asyncio.gather(ends.send("send", ends.engines), asyncio.sleep(60))
    return await transfer(self, ends)


Broadcast.transfer = _transfer_or_die  # type: ignore[method-assign]
sys.exit(main(sys.argv[2:]))
