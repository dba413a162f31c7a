"""GPU memory of a run, by kind of GPU (docs/memory.md has the formulas).

Nothing was measured on a GPU yet: contexts and graphs are estimates, and `ROOM` stands for fragmentation.
"""

from dataclasses import dataclass

from openrs_ray.cluster.engine_memory import ASLEEP, engine_parts
from openrs_ray.cluster.learner_memory import AWAKE, Parts, learner_phases
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig

ROOM = 0.92
"""Above this share of a GPU a plan may fit or not."""


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """One kind of GPU at its peak."""

    role: str
    parts: Parts
    when: str
    sequences: int | None = None
    """Completions of full length whose cache fits, below 1 where not even the weights do; None if unknown."""

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    def fits(self, gpu_bytes: float) -> bool:
        return self.peak <= gpu_bytes and not self.crowded

    @property
    def crowded(self) -> bool:
        """No room for one completion."""
        return self.sequences is not None and self.sequences < 1


def plan(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> list[GpuPlan]:
    """Plans by kind of GPU; with an unknown size the cache is that of one completion."""
    return _plan(config, shape, gpu_bytes, needs_checkpointing(config, shape, gpu_bytes))


def needs_checkpointing(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> bool:
    """True for "auto" where the plan without it exceeds `ROOM`, or the size is unknown."""
    if config.learner.offload_activations:
        return True
    if config.learner.gradient_checkpointing != "auto":
        return config.learner.gradient_checkpointing
    return gpu_bytes is None or _plan(config, shape, gpu_bytes, False)[0].peak > ROOM * gpu_bytes


def memory_text(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> list[str]:
    """No verdict without the GPUs' size."""
    size = "unknown, set placement.gpu_memory_gib" if gpu_bytes is None else f"{gpu_bytes / GIB:.1f}"
    checkpointing = "with" if needs_checkpointing(config, shape, gpu_bytes) else "without"
    lines = [f"memory in GiB, for GPUs of {size}, {checkpointing} gradient checkpointing"]
    for found in plan(config, shape, gpu_bytes):
        text = f"  {found.role}: {found.peak / GIB:.1f} {found.when}"
        if gpu_bytes is not None:
            tight = found.role != "rollout" and found.peak > ROOM * gpu_bytes  # what an engine takes is exact
            word = "does not fit" if not found.fits(gpu_bytes) else "tight" if tight else "fits"
            text += f", {found.peak / gpu_bytes:.0%}: {word}"
        if found.sequences is not None:
            text += f", {max(0, found.sequences)} completions of {config.max_served_tokens} tokens at once"
            for number in range(len(config.rollout.stages)):
                stage = config.in_stage(number)
                most = max(0, engine_parts(stage, shape, gpu_bytes, stage.max_sequence_tokens)[1] or 0)
                text += f"; in stage {number + 1}, {most} of {stage.max_sequence_tokens}"
        lines += [text, f"    {listed(found.parts)}"]
    return lines


def listed(parts: Parts) -> str:
    return " + ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())


def _plan(config: RunConfig, shape: ModelShape, gpu_bytes: float | None, checkpointing: bool) -> list[GpuPlan]:
    phases = learner_phases(config, shape, checkpointing)
    engine, sequences = engine_parts(config, shape, gpu_bytes)
    if not config.placement.colocated:
        return [_peak("learner", phases), GpuPlan("rollout", engine, "in a push", sequences)]
    for when, parts in phases.items():
        sleeps = config.rollout.sleep_while_learning and when not in AWAKE
        parts |= {f"engine's {name}": size for name, size in (ASLEEP if sleeps else engine).items()}
    return [_peak("shared", phases, sequences)]


def _peak(role: str, phases: dict[str, Parts], sequences: int | None = None) -> GpuPlan:
    when = max(phases, key=lambda name: sum(phases[name].values()))
    return GpuPlan(role, {name: size for name, size in phases[when].items() if size}, when, sequences)
