"""Prints what each learner rank and each rollout worker of a run finds in its environment, on a Ray with two make-believe GPUs.

`python gpu_assignment.py FOLDER`: apart, then colocated. A process of its own: Ray's workers get the environment that
Ray is started in.
"""

import json
import os
import sys
from pathlib import Path

import ray
from tiny import make_config

from actors.cluster.placement import reserve
from openrs_ray.cluster.layout import plan_layout

NAMES = ("CUDA_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF")


class Actor:
    def environment(self) -> dict[str, str]:
        return {name: os.environ[name] for name in NAMES if name in os.environ} | {"niceness": str(os.nice(0))}


def found(folder: Path, colocated: bool) -> dict[str, list[dict[str, str]]]:
    count = 2 if colocated else 1
    placement = {"device": "gpu", "colocated": colocated, "num_rollout_gpus": count, "num_learner_gpus": count}
    config = make_config(folder, engine={"gpu_memory_fraction": 0.3}, placement=placement)
    placed = reserve(plan_layout(config, "gpu"), config.placement.wait_s)
    roles = {"learner": placed.learner_options, "rollout": placed.rollout_options}
    actors = {
        role: [ray.remote(Actor).options(**options(number)).remote() for number in range(count)]
        for role, options in roles.items()
    }
    environments = {role: ray.get([actor.environment.remote() for actor in own]) for role, own in actors.items()}
    placed.release()
    return environments


def main(folder: Path) -> None:
    ray.init(
        address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    sys.stdout.write(json.dumps([found(folder, colocated) for colocated in (False, True)]))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
