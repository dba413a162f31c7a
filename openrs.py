"""Open-RS from Python: `run = openrs.train("quickstart", run={"steps": 10})`.

docs/tasks.md shows it; the commands are `openrs COMMAND` or `python -m launch.COMMAND`.
"""

from launch.api.finished import TrainedRun, load_run
from launch.api.train import train
from openrs_ray.errors import RunError, UserError

__all__ = ["RunError", "TrainedRun", "UserError", "load_run", "train"]
