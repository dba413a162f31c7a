"""`python lost_push.py RECIPE ...`: the training command with engines whose second push gets lost."""

import functools
import sys

from faulty_transfer import FaultyWorker

import actors.loop.system
from launch.train import main

actors.loop.system.System = functools.partial(actors.loop.system.System, worker_class=FaultyWorker)  # type: ignore[misc,assignment]
sys.exit(main(sys.argv[1:]))
