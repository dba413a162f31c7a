"""`python program_rewards.py RECIPE ...`: the training command with programs in the place of what the toy model wrote."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count

import actors.loop.system as system
from actors.pools.reward import RewardPool
from launch.train import main
from openrs_ray.records import Verdict
from openrs_ray.rewards.records import JudgeItem

MARK = "openrs-program"
"""Name of processes that a program leaves."""
NAMED = f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'{MARK}')\n"
RIGHT = "def add(a, b):\n    return a + b"
HALF = "def add(a, b):\n    return a + b if a == 12 else None"
WRONG = {
    "hangs": f"{NAMED}def add(a, b):\n    while True: pass",
    "sleeps": f"{NAMED}time.sleep(600)",
    "crashes": "def add(a, b):\n    import os\n    os.abort()",
    "eats memory": "held = []\nwhile True:\n    held.append(bytes(50_000_000))",
    "forks": f"{NAMED}while True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(600)",
    "leaves with success": "import os\nos._exit(0)",
}
PROGRAMS = [RIGHT, HALF, *WRONG.values()]


class ProgramPool(RewardPool):
    """Judges `PROGRAMS` in turn, whatever is to be judged."""

    _turns = count()

    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        programs = [PROGRAMS[next(self._turns) % len(PROGRAMS)] for _ in items]
        texts = [f"```python\n{program}\n```" for program in programs]
        return await super().judge([replace(item, text=text) for item, text in zip(items, texts, strict=True)])


if __name__ == "__main__":
    system.System = partial(system.System, reward_class=ProgramPool)  # type: ignore[assignment, misc]
    sys.exit(main(sys.argv[1:]))
