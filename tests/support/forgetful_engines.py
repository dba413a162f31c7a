"""`python forgetful_engines.py RECIPE ...`: the training command with engines that lose all they know in their sleep.

A CPU engine's sleep changes nothing, so these play a GPU's: their weights become NaN. A learner rank refuses to work while they
are awake, and to send weights while they sleep.
"""

import functools
import os
import sys
from pathlib import Path

import torch

import actors.loop.system
from actors.learner.rank import LearnerRank
from actors.rollout.worker import RolloutWorker
from actors.weights.receiver import WorkerExtension
from launch.train import main

ASLEEP = Path(os.environ["ENGINES_ASLEEP"])


class ForgetfulExtension(WorkerExtension):
    def forget(self) -> None:
        for parameter in self.weight_transfer_engine.model.parameters():
            if parameter.is_floating_point():
                parameter.data.fill_(torch.nan)


class ForgetfulWorker(RolloutWorker):
    worker_extension = "forgetful_engines.ForgetfulExtension"

    async def sleep(self) -> None:
        await super().sleep()
        await self._engine.collective_rpc("forget")
        ASLEEP.touch()

    async def wake(self) -> None:
        await super().wake()
        ASLEEP.unlink()


class AloneRank(LearnerRank):
    def start(self, *arguments: object) -> None:
        assert ASLEEP.exists(), "a learner rank started while the engines held the GPU"
        super().start(*arguments)  # type: ignore[arg-type]

    def train_step(self, *arguments: object) -> dict[str, float]:
        assert ASLEEP.exists(), "a learner rank worked while the engines held the GPU"
        return super().train_step(*arguments)  # type: ignore[arg-type]

    def sender(self, method: str, *arguments: object) -> object:
        assert not ASLEEP.exists(), "weights were sent to sleeping engines"
        return super().sender(method, *arguments)


if __name__ == "__main__":
    import forgetful_engines as importable  # by name, so that the actors' processes find the classes

    actors.loop.system.System = functools.partial(  # type: ignore[misc,assignment]
        actors.loop.system.System, worker_class=importable.ForgetfulWorker, rank_class=importable.AloneRank
    )
    sys.exit(main(sys.argv[1:]))
