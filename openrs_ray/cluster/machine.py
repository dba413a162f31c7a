"""The machine that a run is planned for."""

from dataclasses import dataclass

from openrs_ray.cluster.cards import Card, card
from openrs_ray.cluster.probes import memory_bytes, planned_gpus
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes and speeds of the machine; None where unknown."""

    gpu_bytes: float | None = None
    """Memory of the smallest GPU."""
    card: Card | None = None
    host_bytes: float | None = None
    """Available memory of this host."""
    capability: int | None = None
    """Compute capability, 89 for 8.9, of the GPUs that will compute, not only of those of the head node."""

    @classmethod
    def planned(cls, config: RunConfig, this_machine: bool = True) -> "Machine":
        """The machine that the recipe names, else this one; no GPU memory on a CPU. Forks: call it before starting threads."""
        place = config.placement
        found = planned_gpus(place.device)
        here = found if this_machine else []
        size = min((gpu.total_mib * 2.0**20 for gpu in here), default=None)
        if place.gpu_memory_gib is not None and (place.device == "gpu" or here):
            size = place.gpu_memory_gib * GIB
        name = place.gpu_name or (found[0].name if found else None)
        planned = card(name) if name else None
        capability = planned.capability if planned and (place.gpu_name or here) else None
        return cls(size, planned, float(memory_bytes()) if here else None, capability)
