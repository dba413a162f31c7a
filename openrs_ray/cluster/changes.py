"""Changes of a recipe that may save memory. Each field has doses, the values to try, in order of their effect."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from openrs_ray.cluster.learner_memory import holds_reference
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig

Options = dict[str, Any]
"""New values by dotted field."""
Doses = Mapping[str, Sequence[Any]]


def learner_doses(config: RunConfig) -> Doses:
    """Changes to the learner that leave the training the same, but for the rounding of 8-bit moments."""
    learner, ranks = config.learner, config.placement.num_learner_gpus
    tokens = [max(learner.micro_batch_tokens // by, config.max_sequence_tokens) for by in (2, 4, 8, 16)]
    doses: dict[str, Sequence[Any]] = {
        "learner.micro_batch_tokens": []
        if learner.micro_batch_sequences
        else smaller(learner.micro_batch_tokens, tokens),
        "learner.gradient_checkpointing": []
        if learner.offload_activations or learner.gradient_checkpointing is True
        else [True],
        "learner.logprob_chunk_tokens": smaller(learner.logprob_chunk_tokens, (1024, 512, 256)),
        "learner.zero_stage": [stage for stage in (2, 3) if learner.zero_stage < stage <= ranks + 1],
        "learner.offload_reference": [True] if holds_reference(config) and not learner.offload_reference else [],
        "loss.teacher.offload": [True] if config.loss.kind == "distill" and not config.loss.teacher.offload else [],
        "learner.optimizer": ["adamw_8bit", "adamw_offload"] if learner.optimizer == "adamw" else [],
        "learner.offload_activations": []
        if learner.offload_activations or learner.gradient_checkpointing is False
        else [True],
    }
    return doses


def engine_doses(config: RunConfig) -> Doses:
    """All changes to the engines that leave sampling the same, but `larger_engines`."""
    engine, rollout, place = config.engine, config.rollout, config.placement
    fractions = (0.9, 0.95, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    sequences = [max(1, engine.max_sequences // by) for by in (2, 4, 8)]
    doses: dict[str, Sequence[Any]] = {
        "engine.gpu_memory_fraction": [share for share in fractions if share != engine.gpu_memory_fraction],
        "engine.max_sequences": smaller(engine.max_sequences, sequences),
        "engine.max_batched_tokens": smaller(engine.max_batched_tokens, (4096, 2048)),
        "rollout.sleep_while_learning": [True] if place.colocated and not rollout.sleep_while_learning else [],
    }
    return doses


def larger_engines(config: RunConfig, shape: ModelShape) -> list[Options]:
    """Engines over more GPUs, the fewest first, among which the model and its teacher can be split."""
    gpus, now, field = config.placement.num_rollout_gpus, config.engine.tensor_parallel, "engine.tensor_parallel"
    served = [each for each in (shape, shape.teacher) if each is not None]
    sizes = [size for size in range(now + 1, gpus + 1) if gpus % size == 0 and not config.placement.colocated]
    return [{field: size} for size in sizes if not any(each.broken_split(size) for each in served)]


def more_learners(config: RunConfig, gpus: int) -> Iterator[Options]:
    """More GPUs for the learner, of `gpus` in all."""
    for more in (1, 2, 4):
        if config.num_gpus + more <= gpus:
            yield {"placement.num_learner_gpus": config.placement.num_learner_gpus + more}


def shorter(config: RunConfig, kept: Collection[str] = ()) -> Iterator[Options]:
    """Shorter completions; first those of evaluations where they are longer than those of training.

    `kept`: fields that keep their value. Where an evaluation's length is one of them, it is given with that of training, which
    it would follow otherwise.
    """
    trained, field = config.rollout.max_completion_tokens, "evaluation.max_completion_tokens"
    given = config.evaluation.max_completion_tokens is not None
    if field in kept:
        stays: Options = {} if given else {field: config.max_evaluated_tokens}
        yield from ({"rollout.max_completion_tokens": trained // by} | stays for by in (2, 4, 8, 16))
        return
    if config.has_evaluations and config.max_evaluated_tokens > trained:
        for dose in dict.fromkeys(max(config.max_evaluated_tokens // by, trained) for by in (2, 4, 8, 16)):
            yield {field: dose}
    for by in (2, 4, 8, 16):
        evaluated = {field: min(config.max_evaluated_tokens, trained // by)}
        own = config.has_evaluations and given
        yield {"rollout.max_completion_tokens": trained // by} | (evaluated if own else {})


def without(doses: Doses, kept: Collection[str]) -> Doses:
    """The doses of fields that may change."""
    return {field: values for field, values in doses.items() if field not in kept}


def smaller(now: int, doses: Sequence[int]) -> list[int]:
    return [*dict.fromkeys(dose for dose in doses if dose < now)]


def combinations(doses: Doses) -> Iterator[Options]:
    """All combinations of doses, each field left as it is or at one of its doses; the first changes nothing."""
    for values in product(*([None, *each] for each in doses.values())):
        yield {field: value for field, value in zip(doses, values, strict=True) if value is not None}


def changed(config: RunConfig, options: Options) -> RunConfig:
    """The config with new values, not validated."""
    for field, value in options.items():
        config = _with(config, field.split("."), value)
    return config


def _with(section: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})


def valid(config: RunConfig) -> bool:
    """True if the config's values are allowed together."""
    try:
        RunConfig.model_validate(config.model_dump())
    except ValidationError:
        return False
    return True
