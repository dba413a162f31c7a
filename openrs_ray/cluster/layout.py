"""Resources of every actor on the cluster, from the config alone."""

import os
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

from openrs_ray.config.placement import EngineSlots
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import RunConfig

Device = Literal["cpu", "gpu"]

TRANSPORTS = {
    "gloo": "actors.weights.broadcast:Gloo",
    "nccl": "actors.weights.broadcast:Nccl",
    "ipc": "actors.weights.ipc:Ipc",
}
"""`module:class` of every way for weights from the learner to the engines."""


def transport_class(name: str) -> Any:
    """Class of a transport by its name in TRANSPORTS, or by `module:class`."""
    return resolve_name(TRANSPORTS.get(name, name))


@dataclass(frozen=True, slots=True)
class Layout:
    """Bundles that Ray reserves for each learner rank and rollout engine. Example of one: {"CPU": 1, "GPU": 1}"""

    device: Device
    transport: str
    """A name in TRANSPORTS."""
    colocated: bool
    learner: tuple[dict[str, float], ...]
    rollout: tuple[dict[str, float], ...]
    reward_cpus: float
    threads: int
    """Compute threads of each engine and learner rank on a CPU."""
    extra_rollout: int = 0
    """Engines that may be added where the cluster has room."""
    environment_cpus: float = 0.0
    """Of the processes that answer the model's turns; 0 where nothing does."""
    judges: tuple[dict[str, float], ...] = ()
    """Servers of judge models."""

    def total(self) -> dict[str, float]:
        """Sum of the bundles, by resource."""
        total: dict[str, float] = {"CPU": self.reward_cpus + self.environment_cpus}
        for bundle in (*self.learner, *self.rollout, *self.judges):
            for name, amount in bundle.items():
                total[name] = total.get(name, 0.0) + amount
        return total


def plan_layout(config: RunConfig, device: Device) -> Layout:
    """Bundles of a run. On shared GPUs a rank and its engine hold half a GPU each."""
    place, cpus = config.placement, config.placement.cpus_per_slot
    share = 0.5 if place.colocated else 1.0
    return Layout(
        device=device,
        transport="gloo" if device == "cpu" else "ipc" if place.colocated else "nccl",
        colocated=place.colocated and device == "gpu",
        learner=(_bundle(1, cpus, device, share),) * place.num_learner_gpus,
        rollout=(_bundle(config.engine.tensor_parallel, cpus, device, share),) * config.num_engines,
        reward_cpus=cpus * config.rewards.processes,
        threads=config.threads,
        extra_rollout=config.max_engines - config.num_engines,
        environment_cpus=cpus * sum(task.environment.processes for task in config.tasks if task.environment.answers),
        judges=tuple(_bundle(judge.serve.gpus, cpus, device) for judge in config.served_judges),
    )


def engines_layout(place: EngineSlots, engine: Engine, device: Device, gpus: float) -> Layout:
    """Engines alone: as many as asked for, else as the cluster's GPUs allow, or one on a CPU."""
    size = engine.tensor_parallel
    engines = max(1, int(place.num_rollout_gpus or (gpus if device == "gpu" else 1)) // size)
    return Layout(
        device=device,
        transport="gloo" if device == "cpu" else "nccl",
        colocated=False,
        learner=(),
        rollout=(_bundle(size, place.cpus_per_slot, device),) * engines,
        reward_cpus=0,
        threads=place.threads or max(1, (os.cpu_count() or 1) // engines),
    )


def _bundle(slots: int, cpus: float, device: Device, share: float = 1.0) -> dict[str, float]:
    return {"CPU": cpus * slots} | ({"GPU": share * slots} if device == "gpu" else {})
