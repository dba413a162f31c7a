"""Plans the host's memory for offloaded parts, on all of the run's machines; memory that every run needs is not planned."""

from openrs_ray.cluster.learner_memory import (
    Parts,
    holds_reference,
    itemsize,
    kept_on_host,
    offload_buffer,
    teacher_bytes,
    trained_parameters,
    waiting_bytes,
)
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import listed
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig

_OFFLOADED = {1: 18, 2: 18, 3: 20}
"""Bytes per trained parameter of ZeRO-Offload by its stage: weight, two moments and gradient in float32, copy in bfloat16."""


def host_parts(config: RunConfig, shape: ModelShape) -> Parts:
    """Parts of a run in the host's memory; empty if nothing is offloaded."""
    learner, place, size = config.learner, config.placement, itemsize(config)
    parts: Parts = {}
    if learner.optimizer == "adamw_offload":
        state = float(_OFFLOADED[learner.zero_stage] * trained_parameters(config, shape))
        parts["optimizer"] = state + offload_buffer(config, shape) * place.num_learner_gpus
    if learner.offload_reference and holds_reference(config):
        parts["reference"] = float(size * shape.parameters * place.num_learner_gpus)
    if config.loss.teacher.offload and shape.teacher:
        parts["teacher"] = teacher_bytes(config, shape) * place.num_learner_gpus + waiting_bytes(config, shape)
    if learner.offload_activations:
        parts["activations"] = kept_on_host(config, shape) * place.num_learner_gpus
    if learner.lora.rank:
        parts["start weights of the engines"] = float(size * shape.parameters * place.num_rollout_gpus)
    return parts


def host_text(config: RunConfig, shape: ModelShape, machine: Machine) -> list[str]:
    """A line of the plan, with a warning if the machine has less memory; none if nothing is offloaded."""
    parts, here = host_parts(config, shape), machine.host_bytes
    if not parts:
        return []
    needed = sum(parts.values())
    line = f"memory of the host in GiB: {needed / GIB:.1f} on top of what every run takes ({listed(parts)})"
    if here is None:
        return [line]
    word = "" if needed < here else "WARNING: only "
    return [f"{line}; {word}{here / GIB:.1f} are free here"]
