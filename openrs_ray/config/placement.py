"""The config section `placement`: where processes run; also the smaller one of evaluations and curations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openrs_ray.config.rollout import Engine
from openrs_ray.config.section import Cpus, Parts, Section, SomeAmount


class Slots(Section):
    """Where processes run and how much of a machine each holds; shared by training, evaluation and curation."""

    device: Literal["auto", "gpu", "cpu"] = "auto"
    """Where it runs (auto: on GPUs where there are any); on a CPU every GPU below stands for `cpus_per_slot` CPUs."""
    cpus_per_slot: Cpus = 1.0
    """CPUs reserved for each GPU of an engine and each learner rank."""
    threads: Parts | None = None
    """Compute threads of each engine and learner rank on a CPU (default: the machine's CPUs over those that work at once)."""
    wait_s: Annotated[float, Field(ge=0, le=2_000_000)] = 20.0
    """Longest wait for the cluster to have what is asked (raise it where an autoscaler adds nodes)."""


class EngineSlots(Slots):
    """The section `placement` of an evaluation or a curation, which have no learner."""

    num_rollout_gpus: Parts | None = None
    """GPUs for engines (default: all that the cluster has; on a CPU those of one engine)."""


class Placement(Slots):
    num_rollout_gpus: Parts = 1
    """GPUs for rollout engines."""
    max_rollout_gpus: Parts | None = None
    """Use up to so many for them while the cluster has that many free, such as spot machines (default: num_rollout_gpus)."""
    num_learner_gpus: Parts = 3
    """GPUs for the learner: one rank each, all on one node."""
    colocated: bool = False
    """Engines and learner ranks share the same GPUs (both numbers must be equal)."""
    gpu_memory_gib: SomeAmount | None = None
    """Memory of one GPU in GiB, as nvidia-smi shows it, to plan for (default: that of this machine's GPUs)."""
    gpu_name: str | None = None
    """Name of the GPUs, such as A40 or RTX 4090, to forecast time and cost for (default: that of this machine's GPUs)."""


def check_split(gpus: int | None, engine: Engine) -> None:
    """ValueError unless the GPUs divide into whole engines."""
    if gpus is not None and gpus % engine.tensor_parallel:
        raise ValueError(
            f"placement.num_rollout_gpus ({gpus}) must be a multiple of engine.tensor_parallel ({engine.tensor_parallel})"
        )
