"""`python fake_gpus.py RECIPE ...`: the training command on nodes that only claim to have GPUs, one for each engine and rank."""

import sys
from dataclasses import replace

import actors.cluster.placement
from launch.train import main
from openrs_ray.cluster.layout import Device, Layout, plan_layout
from openrs_ray.config.schema import RunConfig


def with_gpus(config: RunConfig, device: Device) -> Layout:
    layout = plan_layout(config, device)
    learner, rollout = (tuple(bundle | {"GPU": 1.0} for bundle in side) for side in (layout.learner, layout.rollout))
    return replace(layout, learner=learner, rollout=rollout)


if __name__ == "__main__":
    actors.cluster.placement.plan_layout = with_gpus
    sys.exit(main(sys.argv[1:]))
