"""The dry run: says what a run would do and need, and starts nothing."""

from collections.abc import Callable, Iterator

from openrs_ray.cluster.disk import disk_text
from openrs_ray.cluster.forecast import Card, forecast_text, planned_card
from openrs_ray.cluster.memory import ModelShape, check_fits, memory_text, planned_gpu_bytes
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.common.hub import Unreachable
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.power import plan_lines
from openrs_ray.models.bundled import resolve_model
from openrs_ray.preparation.dry_run_text import dry_run_text
from openrs_ray.preparation.prepared import Prepared, check_model, prepare
from openrs_ray.preparation.preview import look_lines
from openrs_ray.run.resume import check_run, resume_notes


def dry_run(config: RunConfig, say: Callable[[str], None], resume: bool = True) -> None:
    """Say the plan line by line. UserError for mistakes, and for anything out of reach."""
    gpu_bytes, card = planned_gpu_bytes(config), planned_card(config)  # forks, so it comes before any thread
    prepared, missing = _prepared_or_missing(config)
    say(dry_run_text(config))
    held_out = len(prepared.held_out) if prepared else config.evaluation.hold_out or config.evaluation.problems or 0
    shape = prepared.shape if prepared else _shape_without_problems(config)
    for lines in (
        _data_lines(config, prepared) if prepared else (),
        resume_notes(config),
        _power_lines(config, held_out) if held_out else (),
        _need_lines(config, shape, card, gpu_bytes, held_out),
    ):
        for line in lines:
            say(line)
    if shape is not None:
        check_fits(config, shape, gpu_bytes)
    check_run(config, resume)
    if missing is not None:
        raise UserError(f"{missing}; without it the tokenizer, the prompts and the golds were not checked")


def _prepared_or_missing(config: RunConfig) -> tuple[Prepared | None, Unreachable | None]:
    """The prepared run, or the error where it is out of reach."""
    try:
        return prepare(config), None
    except Unreachable as error:
        return None, error


def _shape_without_problems(config: RunConfig) -> ModelShape | None:
    """The model's shape; None where it is out of reach and not shipped."""
    try:
        return check_model(config, resolve_model(config.model.path))[1]
    except Unreachable:
        return shipped_shape(config.model.path)


def _data_lines(config: RunConfig, prepared: Prepared) -> Iterator[str]:
    yield f"stop tokens: {'; '.join(map(str, prepared.stop_tokens))}"
    yield from (f"data: {note}" for note in prepared.notes)
    yield from look_lines(config, prepared)


def _power_lines(config: RunConfig, held_out: int) -> list[str]:
    """Smallest difference that the run's own evaluation can show, and the cost of more samples."""
    every = config.evaluation.every_steps
    evaluations = 2 + ((config.run.steps - 1) // every if every else 0)
    return plan_lines({f"the run's {evaluations} evaluations": held_out}, config.evaluation.samples, evaluations)


def _need_lines(
    config: RunConfig, shape: ModelShape | None, card: Card | None, gpu_bytes: float | None, held_out: int
) -> Iterator[str]:
    if shape is None:
        yield f"memory, forecast, disk: not planned, since the shape of {config.model.path} is not known here"
        return
    if config.placement.device == "gpu" or gpu_bytes is not None:
        yield from memory_text(config, shape, gpu_bytes)
        yield from forecast_text(config, shape, card, gpu_bytes, held_out)
    else:
        yield "memory and time: planned for GPUs only, and this machine has none (placement.device gpu plans for others)"
    yield from disk_text(config, shape, held_out)
