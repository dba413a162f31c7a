"""The plan of a run beyond its config: memory of the GPUs, duration, cost and disk space."""

from collections.abc import Iterator

from openrs_ray.cluster.disk import disk_text
from openrs_ray.cluster.forecast import Card, forecast_text
from openrs_ray.cluster.memory import ModelShape, memory_text
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.common.hub import Unreachable
from openrs_ray.config.schema import RunConfig
from openrs_ray.models.bundled import resolve_model
from openrs_ray.preparation.prepared import Prepared, check_model, prepare


def prepared_or_missing(config: RunConfig) -> tuple[Prepared | None, Unreachable | None]:
    """The prepared model and problems of a run, or the error for which they are out of reach without a network."""
    try:
        return prepare(config), None
    except Unreachable as error:
        return None, error


def planned_shape(config: RunConfig) -> ModelShape | None:
    """The model's shape without its tokenizer and problems; None where it is out of reach and not shipped."""
    try:
        return check_model(config, resolve_model(config.model.path))[1]
    except Unreachable:
        return shipped_shape(config.model.path)


def plan_text(
    config: RunConfig, shape: ModelShape | None, card: Card | None, gpu_bytes: float | None, held_out: int
) -> Iterator[str]:
    """Memory, forecast and disk, line by line."""
    if shape is None:
        yield f"memory, forecast, disk: not planned, since the shape of {config.model.path} is not known here"
        return
    if config.placement.device == "gpu" or gpu_bytes is not None:
        yield from memory_text(config, shape, gpu_bytes)
        yield from forecast_text(config, shape, card, gpu_bytes, held_out)
    else:
        yield "memory and time: planned for GPUs only, and this machine has none (placement.device gpu plans for others)"
    yield from disk_text(config, shape, held_out)
