"""Memory of the host for what GPUs leave there, on all of the run's machines; what every run takes of it is not planned."""

from openrs_ray.cluster.learner_memory import Parts, activations, holds_reference, itemsize, trained_parameters
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import listed, needs_checkpointing
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig

_OFFLOADED = 16
"""Bytes per trained parameter of ZeRO-Offload: float32 weight, two moments and gradient; with a copy in the model's format."""


def host_parts(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> Parts:
    """Empty where nothing is left to the host."""
    learner, place, size = config.learner, config.placement, itemsize(config)
    parts: Parts = {}
    if learner.optimizer == "adamw_offload":
        parts["optimizer"] = float((_OFFLOADED + size) * trained_parameters(config, shape))
    if learner.offload_reference and holds_reference(config):
        parts["reference"] = float(size * shape.parameters * place.num_learner_gpus)
    if learner.offload_activations:
        saved, *_ = activations(config, shape, needs_checkpointing(config, shape, gpu_bytes))
        parts["activations"] = saved * place.num_learner_gpus
    if learner.lora.rank:
        parts["start weights of the engines"] = float(size * shape.parameters * place.num_rollout_gpus)
    return parts


def host_text(config: RunConfig, shape: ModelShape, machine: Machine) -> list[str]:
    """A line, and a warning where the machine has less; nothing where nothing is left to the host."""
    parts, here = host_parts(config, shape, machine.gpu_bytes), machine.host_bytes
    if not parts:
        return []
    needed = sum(parts.values())
    line = f"memory of the host in GiB: {needed / GIB:.1f} beside what every run takes ({listed(parts)})"
    if here is None:
        return [line]
    word = "" if needed < here else "WARNING: only "
    return [f"{line}; {word}{here / GIB:.1f} are free here"]
