"""The plan of a run by its config, as text: sizes per step, placement, fields not at their defaults."""

import json
from collections.abc import Iterator

from openrs_ray.config.fidelity import differences
from openrs_ray.config.fields import Names, as_json
from openrs_ray.config.load import flat
from openrs_ray.config.schema import Loss, RunConfig
from openrs_ray.run.budget import most_text


def dry_run_text(config: RunConfig) -> str:
    text = "".join(f"{name:<12} {value}\n" for name, value in _rows(config))
    values, fields = flat(config), Names.of(type(config), {}).fields
    defaults = {name: as_json(field.get_default()) for name, field in fields.items() if not field.is_required()}
    given = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    text += "\nNot at their defaults:\n" + "".join(f"  {name}: {json.dumps(given[name])}\n" for name in given)
    if "fidelity" not in config.model_fields_set:  # no reproduction of the paper
        return text
    lines = "".join(f"  {line}\n" for line in differences(values))
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
    yield "learner", _learner_text(config)
    yield "fidelity", config.fidelity
    yield "loss", loss_text(config.loss)
    yield "rewards", ", ".join(f"{weight:g} x {name}" for name, weight in config.rewards.weights.items())
    yield (
        "checkpoints",
        f"kept every {saving.every_steps} steps and at the end, for resuming every {saving.every_minutes:g} minutes",
    )
    yield "cost", most_text(config.cost, config.max_gpus)


def _data_text(config: RunConfig) -> str:
    drawn, rollout = config.run.steps * config.rollout.problems_per_step, config.rollout
    most = f" (up to {config.run.steps * rollout.most_drawn_per_step:,} with those that are replaced)"
    return f"{config.data.path}, {drawn:,} problems drawn over the run{most if rollout.replace_uniform_groups else ''}"


def evaluation_text(config: RunConfig) -> str:
    part = config.evaluation
    if part.path is None and not part.hold_out:
        return "none"
    problems = f"{part.problems} problems" if part.problems else "all problems"
    problems = f"{problems} of {part.path}" if part.path else f"{part.hold_out} held-out problems of {config.data.path}"
    when = f", every {part.every_steps} steps" if part.every_steps else ""
    return f"{problems} x {part.samples} samples, before and after{when}"


def _rollout_text(config: RunConfig) -> str:
    rollout, place = config.rollout, config.placement
    more = (
        f", up to {config.max_engines} engines where GPUs are free" if config.max_engines > config.num_engines else ""
    )
    ahead = (
        f"up to {rollout.staleness} version(s) ahead of the learner"
        if rollout.staleness
        else "in turn with the learner"
    )
    sleeps = ", asleep while it works" if rollout.sleep_while_learning else ""
    return f"{config.num_engines} engine(s) on {place.num_rollout_gpus} {_unit(config)}{more}, {ahead}{sleeps}"


def _learner_text(config: RunConfig) -> str:
    ranks = config.placement.num_learner_gpus
    return (
        f"{ranks} rank(s) on {ranks} {_unit(config)}, ZeRO {config.learner.zero_stage}, about "
        f"{config.completions_per_step / ranks:g} completions per rank in micro-batches of at most "
        f"{config.micro_batch_tokens:,} tokens"
    )


def _unit(config: RunConfig) -> str:
    place = config.placement
    slots = f"slots of {place.cpus_per_slot:g} CPUs"
    unit = {"gpu": "GPUs", "cpu": slots, "auto": f"GPUs (where there is none: {slots})"}[place.device]
    return unit + (" (shared)" if place.colocated else "")


def loss_text(loss: Loss) -> str:
    low, high = loss.clip_range
    bounds = f"at most {high:g}" if loss.kind in ("cispo", "tis") else f"in [{low:g}, {high:g}]"
    ratio = f"ratio {bounds}" if loss.old_policy == "sampler" else "ratio always 1 (loss.old_policy current)"
    penalty = f"KL {loss.kl_beta:g}" if loss.kl_beta else "no KL"
    return f"{loss.kind}, {ratio}, normalization {loss.normalization}, correction {loss.correction}, {penalty}"
