"""`python lost_push.py RECIPE ...`: the training command with engines whose second push gets lost."""

import functools
import sys

from faulty_transfer import FaultyWorker

import actors.loop.trainer
from launch.train import main

actors.loop.trainer.Trainer = functools.partial(actors.loop.trainer.Trainer, worker_class=FaultyWorker)  # type: ignore[misc,assignment]
sys.exit(main(sys.argv[1:]))
