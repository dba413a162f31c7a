"""The dry run: says what a run would do and need, and starts nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from openrs_ray.cluster.disk import disk_text
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.forecast_text import forecast_text
from openrs_ray.cluster.host_memory import host_text
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import memory_text
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import planned_shape
from openrs_ray.common.hub import Unreachable
from openrs_ray.config.fidelity import differences
from openrs_ray.config.load import flat
from openrs_ray.config.loss import Loss
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.stages import RolloutStage
from openrs_ray.config.task import Task
from openrs_ray.config.teacher import Teacher
from openrs_ray.errors import UserError
from openrs_ray.evaluation.power import plan_lines
from openrs_ray.models.bundled import resolve_model
from openrs_ray.preparation.plan_json import not_at_default, plan_as_json
from openrs_ray.preparation.prepared import Prepared, check_model, prepare
from openrs_ray.preparation.preview import look_lines
from openrs_ray.preparation.teacher import teacher_shape
from openrs_ray.run.budget import cost_text
from openrs_ray.run.resume import check_run, kept_fields, resume_notes


def dry_run(config: RunConfig, say: Callable[[str], None], resume: bool = True) -> dict[str, Any]:
    """Say the plan line by line, and return it. UserError for mistakes, and for anything out of reach."""
    machine = Machine.planned(config)
    prepared, missing = _prepared_or_missing(config)
    say(dry_run_text(config))
    parts = [task.held_out for task in config.tasks]
    held_out = len(prepared.held_out) if prepared else sum(part.hold_out or part.problems or 0 for part in parts)
    shape = prepared.shape if prepared else _shape_without_problems(config)
    for lines in (
        _data_lines(config, prepared) if prepared else (),
        resume_notes(config),
        _power_lines(config, held_out) if held_out else (),
        _need_lines(config, shape, machine, held_out),
    ):
        for line in lines:
            say(line)
    check_run(config, resume)  # first: what may still change is known of a run that may go on
    if shape is not None:
        check_fits(config, shape, machine, kept_fields(config))
    if prepared is None:
        raise UserError(f"{missing}; without it the tokenizer, the prompts and the golds were not checked")
    return plan_as_json(config, prepared, machine)


def _prepared_or_missing(config: RunConfig) -> tuple[Prepared | None, Unreachable | None]:
    try:
        return prepare(config), None
    except Unreachable as error:
        return None, error


def _shape_without_problems(config: RunConfig) -> ModelShape | None:
    """None where the shape is out of reach and not shipped."""
    teacher = config.loss.teacher.path
    try:
        shape = check_model(config, resolve_model(config.model.path))[1]
        return replace(shape, teacher=teacher_shape(config))
    except Unreachable:
        return planned_shape(config.model.path, teacher)


def _data_lines(config: RunConfig, prepared: Prepared) -> Iterator[str]:
    yield f"stop tokens: {'; '.join(map(str, prepared.stop_tokens))}"
    yield from (f"data: {note}" for note in prepared.notes)
    yield from look_lines(config, prepared)


def _power_lines(config: RunConfig, held_out: int) -> list[str]:
    """Smallest difference that the run's own evaluation can show, and the cost of more samples."""
    every = config.evaluation.every_steps
    evaluations = 2 + ((config.run.steps - 1) // every if every else 0)
    return plan_lines({f"the run's {evaluations} evaluations": held_out}, config.evaluation.samples, evaluations)


def _need_lines(config: RunConfig, shape: ModelShape | None, machine: Machine, held_out: int) -> Iterator[str]:
    if shape is None:
        teacher = config.loss.teacher.path
        known_by = f"{config.model.path} or {teacher}" if teacher else config.model.path
        yield f"memory, forecast, disk: not planned, since the shape of {known_by} is not known here"
        return
    if config.placement.device == "gpu" or machine.gpu_bytes is not None:
        yield from memory_text(config, shape, machine.gpu_bytes)
        yield from host_text(config, shape, machine)
        yield from forecast_text(config, shape, machine.card, machine.gpu_bytes, held_out)
    else:
        yield "memory and time: planned for GPUs only, and this machine has none (placement.device gpu plans for others)"
    yield from disk_text(config, shape, held_out)


def dry_run_text(config: RunConfig) -> str:
    text = "".join(f"{name:<12} {value}\n" for name, value in _rows(config))
    given = not_at_default(config)
    text += "\nNot at their defaults:\n" + "".join(f"  {name}: {json.dumps(given[name])}\n" for name in given)
    if "fidelity" not in config.model_fields_set:  # no reproduction of the paper
        return text
    lines = "".join(f"  {line}\n" for line in differences(flat(config)))
    return f"{text}\nWhere the paper and its published code differ (this run: {config.fidelity}):\n{lines}"


def _rows(config: RunConfig) -> Iterator[tuple[str, str]]:
    rollout, saving = config.rollout, config.checkpoint
    yield "run", f"{config.run.path}, {config.run.steps} steps, seed {config.run.seed}"
    yield "model", f"{config.model.path} in {config.model.dtype}"
    yield "data", _data_text(config)
    yield "evaluation", evaluation_text(config)
    yield (
        "one step",
        f"{rollout.problems_per_step} problems x {rollout.completions_per_problem} completions = "
        f"{config.completions_per_step} completions, at most "
        f"{config.completions_per_step * rollout.max_completion_tokens:,} sampled tokens",
    )
    yield "rollout", _rollout_text(config)
    for number, stage in enumerate(rollout.each_stage if rollout.stages else ()):
        yield f"stage {number + 1}", _stage_text(stage)
    for task in config.tasks:
        if task.environment.answers:
            yield "environment", _environment_text(task)
    yield "learner", _learner_text(config)
    yield "fidelity", config.fidelity
    yield "loss", loss_text(config.loss)
    for judge in config.judges.values():
        place = judge.url or f"a server of the run, on {judge.serve.gpus} GPU(s)"
        yield "judge", f"{judge.model} at {place} (a dry run does not ask it)"
    for task in config.tasks:
        weights = ", ".join(f"{weight:g} x {name}" for name, weight in task.rewards.weights.items())
        yield "rewards", f"{task.name}: {weights}" if task.name else weights
    yield (
        "checkpoints",
        f"kept every {saving.every_steps} steps and at the end, for resuming every {saving.every_minutes:g} minutes",
    )
    if config.guard.action != "off":
        yield "guard", _guard_text(config)
    yield "cost", cost_text(config.cost, config.max_gpus)


def _data_text(config: RunConfig) -> str:
    drawn, rollout = config.run.steps * config.rollout.problems_per_step, config.rollout
    most = f" (up to {config.run.steps * rollout.most_drawn_per_step:,} with those that are replaced)"
    total = sum(task.weight for task in config.tasks)
    shares = [f"{task.data.path} ({task.name}, {task.weight / total:.1%})" for task in config.tasks if task.name]
    paths = " and ".join(shares) or config.tasks[0].data.path
    return f"{paths}, {drawn:,} problems drawn over the run{most if rollout.replace_uniform_groups else ''}"


def evaluation_text(config: RunConfig) -> str:
    part = config.evaluation
    problems = [_held_out_text(task) for task in config.tasks if task.held_out.path or task.held_out.hold_out]
    if not problems:
        return "none"
    when = f", every {part.every_steps} steps" if part.every_steps else ""
    longest = f" of up to {config.max_evaluated_tokens:,} tokens" if part.max_completion_tokens else ""
    return f"{' and '.join(problems)} x {part.samples} samples{longest}, before and after{when}"


def _held_out_text(task: Task) -> str:
    part = task.held_out
    problems = f"{part.problems} problems" if part.problems else "all problems"
    return f"{problems} of {part.path}" if part.path else f"{part.hold_out} held-out problems of {task.data.path}"


def _rollout_text(config: RunConfig) -> str:
    rollout, place = config.rollout, config.placement
    grows, staleness = config.max_engines > config.num_engines, rollout.staleness
    more = f", up to {config.max_engines} engines where GPUs are free" if grows else ""
    ahead = f"up to {staleness} version(s) ahead of the learner" if staleness else "in turn with the learner"
    at_once = f", at most {rollout.in_flight} groups at once" if rollout.in_flight else ""
    sleeps = ", asleep while it works" if rollout.sleep_while_learning else ""
    return f"{config.num_engines} engine(s) on {place.num_rollout_gpus} {_unit(config)}{more}, {ahead}{at_once}{sleeps}"


def _guard_text(config: RunConfig) -> str:
    guard = config.guard
    if guard.action == "warn":
        return "warns"
    return f"warns, and goes back at most {guard.max_rollbacks} times, changing {' or '.join(guard.knobs)} (not in the forecast)"


def _stage_text(stage: RolloutStage) -> str:
    return f"{stage.as_text}, {stage.until.as_text if stage.until else 'until the run ends'}"


def _environment_text(task: Task) -> str:
    section, of_task = task.environment, f" of task {task.name}" if task.name else ""
    cut = f" of at most {section.max_turn_tokens} tokens" if section.max_turn_tokens else ""
    return (
        f"{section.name}{of_task}, at most {section.max_turns} turns{cut}, {section.processes} process(es) that answer within "
        f"{section.deadline_s:g} s each"
    )


def _learner_text(config: RunConfig) -> str:
    ranks, updates = config.placement.num_learner_gpus, config.learner.updates_per_batch
    return (
        f"{ranks} rank(s) on {ranks} {_unit(config)}, ZeRO {config.learner.zero_stage}, about "
        f"{round(config.completions_per_step / ranks, 1):,g} completions per rank in micro-batches of at most "
        f"{config.micro_batch_tokens:,} tokens{f', {updates} optimizer steps of them' if updates > 1 else ''}"
    )


def _unit(config: RunConfig) -> str:
    place = config.placement
    slots = f"slots of {place.cpus_per_slot:g} CPUs"
    unit = {"gpu": "GPUs", "cpu": slots, "auto": f"GPUs (where there is none: {slots})"}[place.device]
    return unit + (" (shared)" if place.colocated else "")


def loss_text(loss: Loss) -> str:
    penalty = f"KL {loss.kl_beta:g}" if loss.kl_beta else "no KL"
    bonus = f", entropy {loss.entropy_weight:g}" if loss.uses_entropy else ""
    bonus += f" adapted to a floor of {loss.entropy_floor:g}" if loss.entropy_floor else ""
    cut = ", without truncated completions" if loss.truncated_completions == "leave_out" else ""
    ratio = f", {_ratio_text(loss)}" if loss.uses_ratios else ""
    taught = f", {_teacher_text(loss.teacher)}" if loss.kind == "distill" else ""
    return (
        f"{loss.kind}{taught}{ratio}, normalization {loss.normalization}, correction {loss.correction}, {penalty}{bonus}, "
        f"advantage {loss.advantage}{cut}"
    )


def _ratio_text(loss: Loss) -> str:
    low, high = loss.clip_range
    if loss.old_policy == "current":
        return "ratio always 1 (loss.old_policy current)"
    if loss.kind == "sapo":
        return f"ratio in a soft gate of temperature {loss.gate_temperature:g} and {loss.gate_temperature_negative:g}"
    return f"ratio at most {high:g}" if loss.kind in ("cispo", "tis") else f"ratio in [{low:g}, {high:g}]"


def _teacher_text(teacher: Teacher) -> str:
    likeliest = f"the {teacher.top_k} likeliest tokens and the rest" if teacher.top_k else "the sampled token"
    return f"teacher {teacher.path} by {likeliest}, with {teacher.weight:.0%} of the loss"
