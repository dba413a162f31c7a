"""Who sits where: the shape of a run on a cluster, worked out from the config alone."""

from dataclasses import dataclass
from typing import Literal

from openrs_ray.config.schema import RunConfig

Device = Literal["cpu", "gpu"]

TRANSPORTS = {
    "gloo": "actors.weights.broadcast:Gloo",
    "nccl": "actors.weights.broadcast:Nccl",
    "ipc": "actors.weights.ipc:Ipc",
}
"""`module:class` of every way for weights to get from the learner to the engines; `plan_layout` chooses one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Resources of every actor. A bundle is what Ray reserves for one learner rank or one rollout engine.

    Example (4 GPUs, 1 + 3): device="gpu", transport="nccl", learner=({"CPU": 1, "GPU": 1},) * 3, rollout=({"CPU": 1, "GPU": 1},)
    """

    device: Device
    transport: str
    """A name in TRANSPORTS."""
    colocated: bool
    learner: tuple[dict[str, float], ...]
    rollout: tuple[dict[str, float], ...]
    reward_cpus: float
    extra_rollout: int = 0
    """Engines of the first one's size that may be added where the cluster has room."""

    def total(self) -> dict[str, float]:
        """Everything the run must have of the cluster, by resource."""
        total: dict[str, float] = {"CPU": self.reward_cpus}
        for bundle in (*self.learner, *self.rollout):
            for name, amount in bundle.items():
                total[name] = total.get(name, 0.0) + amount
        return total


def plan_layout(config: RunConfig, device: Device) -> Layout:
    """Bundles for the configured split. On shared GPUs a rank and its engine hold half a GPU each."""
    place, tensor_parallel = config.placement, config.rollout.tensor_parallel
    cpus = place.cpus_per_slot
    share = 0.5 if place.colocated else 1.0

    def bundle(slots: int) -> dict[str, float]:
        return {"CPU": cpus * slots} | ({"GPU": share * slots} if device == "gpu" else {})

    return Layout(
        device=device,
        transport="gloo" if device == "cpu" else "ipc" if place.colocated else "nccl",
        colocated=place.colocated and device == "gpu",
        learner=(bundle(1),) * place.num_learner_gpus,
        rollout=(bundle(tensor_parallel),) * config.num_engines,
        reward_cpus=cpus * config.rewards.processes,
        extra_rollout=config.max_engines - config.num_engines,
    )
