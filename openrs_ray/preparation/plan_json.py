"""The plan of a dry run as one document for programs; sizes in bytes."""

from typing import Any

from openrs_ray.cluster.disk import disk_parts, evaluations
from openrs_ray.cluster.engine_memory import engine_parts
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import needs_checkpointing, plan
from openrs_ray.config.fields import Names, as_json
from openrs_ray.config.load import flat
from openrs_ray.config.schema import RunConfig
from openrs_ray.evaluation.power import smallest_difference
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.preparation.preview import warning_lines


def plan_as_json(config: RunConfig, prepared: Prepared, machine: Machine) -> dict[str, Any]:
    held_out, rollout, samples = len(prepared.held_out), config.rollout, config.evaluation.samples
    return {
        "run": config.run.name,
        "folder": config.run.path,
        "steps": config.run.steps,
        "not_at_default": not_at_default(config),
        "completions_per_step": config.completions_per_step,
        "most_sampled_tokens_per_step": config.completions_per_step * rollout.max_completion_tokens,
        "problems": len(prepared.problems),
        "problems_drawn": config.run.steps * rollout.problems_per_step,
        "held_out_problems": held_out,
        "evaluations": evaluations(config) if held_out else 0,
        "max_evaluated_tokens": config.max_evaluated_tokens if held_out else None,
        "smallest_difference_points": 100 * smallest_difference(held_out, samples) if held_out else None,
        "stop_token_ids": prepared.eos_ids,
        "notes": prepared.notes,
        "warnings": [line.removeprefix("warning: ") for line in warning_lines(config, prepared)],
        **_need(config, prepared, machine),
    }


def not_at_default(config: RunConfig) -> dict[str, Any]:
    """Values by dotted name."""
    fields = Names.of(type(config), config.model_dump()).fields
    defaults = {name: as_json(field.get_default()) for name, field in fields.items() if not field.is_required()}
    return {name: value for name, value in flat(config).items() if name not in defaults or value != defaults[name]}


def _need(config: RunConfig, prepared: Prepared, machine: Machine) -> dict[str, Any]:
    shape, gpu_bytes, on_gpus = prepared.shape, machine.gpu_bytes, _on_gpus(config, machine)
    return {
        "gpus": config.num_gpus if on_gpus else 0,
        "gpu_bytes": gpu_bytes,
        "gradient_checkpointing": needs_checkpointing(config, shape, gpu_bytes),
        "memory": [
            {
                "role": one.role,
                "when": one.when,
                "peak_bytes": one.peak,
                "parts_bytes": one.parts,
                "fits": None if gpu_bytes is None else one.fits(gpu_bytes),
                "completions_at_once": one.sequences,
            }
            for one in plan(config, shape, gpu_bytes)
        ]
        if on_gpus
        else [],
        "host_parts_bytes": host_parts(config, shape) if on_gpus else {},
        "forecast": _forecast(config, prepared, machine) if on_gpus else None,
        "stages": _stages(config, prepared, machine) if on_gpus else [],
        "disk_parts_bytes": disk_parts(config, shape, len(prepared.held_out)),
    }


def _stages(config: RunConfig, prepared: Prepared, machine: Machine) -> list[dict[str, Any]]:
    """The plan of each of `rollout.stages`; times for a known GPU."""
    ends, begun, plans = config.rollout.planned_ends(config.run.steps), 0, []
    for number in range(len(config.rollout.stages)):
        stage = config.in_stage(number)
        ends_of_range = machine.card and forecast(stage, prepared.shape, machine.card, machine.gpu_bytes, 0)
        plans.append(
            {
                "max_completion_tokens": stage.rollout.max_completion_tokens,
                "steps": ends[number] - begun,
                "completions_at_once": engine_parts(
                    stage, prepared.shape, machine.gpu_bytes, stage.max_sequence_tokens
                )[1],
                "step_seconds": [end.step_s for end in ends_of_range] if ends_of_range else None,
            }
        )
        begun = ends[number]
    return plans


def _on_gpus(config: RunConfig, machine: Machine) -> bool:
    return config.placement.device == "gpu" or machine.gpu_bytes is not None


def _forecast(config: RunConfig, prepared: Prepared, machine: Machine) -> dict[str, Any] | None:
    """The best and the worst end of the range; None for an unknown GPU."""
    if machine.card is None:
        return None
    ends = forecast(config, prepared.shape, machine.card, machine.gpu_bytes, len(prepared.held_out))
    price = config.cost.price * config.num_gpus
    return {
        "gpu": machine.card.name,
        "step_seconds": [end.step_s for end in ends],
        "sampling_seconds": [end.sampling_s for end in ends],
        "learning_seconds": [end.learning_s for end in ends],
        "hours": [end.hours for end in ends],
        "dollars": [end.hours * price for end in ends] if price else None,
    }
