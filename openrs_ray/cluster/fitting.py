"""Refuses a run that cannot fit, and names the cheapest changes with which it would."""

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import torch

from openrs_ray.cluster.cards import Card, card
from openrs_ray.cluster.changes import Options, more_learners, shorter
from openrs_ray.cluster.engine_memory import engine_parts
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import GpuPlan, listed, plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.search import Found, Search
from openrs_ray.common.formatting import GIB
from openrs_ray.config.quantization import refusal
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

_UNKNOWN = "A40"
"""The GPU to plan for when it is unknown."""
_SLOWER = 0.1
"""If the best change makes a step slower by more than this share, alternatives that are faster by this share are named, too."""
_RANK = 32
_ROUNDED = 0.3
"""Difference per token that a probe of engines in 8 bits may need to accept (docs/quantization.md)."""
_QUANTIZED, _ADAPTERS = "engines sample in 8 bits", "trains adapters instead of all weights"


def check_fits(config: RunConfig, shape: ModelShape, machine: Machine, kept: Collection[str] = ()) -> None:
    """UserError when the GPUs lack what the run needs, memory or arithmetic, with the changes that would help.

    `kept`: fields that a run which has begun must not change (`run.resume.kept_fields`).
    """
    quantization = config.rollout.quantization
    if machine.capability is not None and (reason := refusal(quantization, machine.capability)):
        if "rollout.quantization" in kept:  # which the run's resume must not change
            reason = f"{reason.partition(': ')[0]}: take a GPU like the one that the run began on, or another run.name"
        raise UserError(reason)
    if (gpu_bytes := machine.gpu_bytes) is None:
        return
    for found in plan(config, shape, gpu_bytes):
        if not found.fits(gpu_bytes):
            problem = f"{_problem(config, found, gpu_bytes)} ({listed(found.parts)})"
            raise UserError(f"{problem}: {advice(config, shape, gpu_bytes, machine.card, machine.host_bytes, kept)}")
    if shape.teacher is not None and config.has_evaluations:
        _check_teacher_is_served(config, shape.teacher, gpu_bytes)


def _check_teacher_is_served(config: RunConfig, teacher: ModelShape, gpu_bytes: float) -> None:
    """UserError where the engines that measure the teacher on held-out problems, before all others, lack the memory."""
    plain = config.model_copy(update={"rollout": config.rollout.model_copy(update={"quantization": "none"})})
    longest = config.max_evaluation_sequence
    parts, room = engine_parts(plain, teacher, gpu_bytes, longest)
    if room is not None and room < 1:
        raise UserError(
            f"an engine gets {config.engine.gpu_memory_fraction:g} of a {gpu_bytes / GIB:.1f} GiB GPU "
            f"(engine.gpu_memory_fraction), and the teacher, which is measured on the held-out problems first, has "
            f"{parts['weights'] / GIB:.1f} GiB of weights on each, which leaves no room for one completion of "
            f"{longest} tokens: raise engine.gpu_memory_fraction or engine.tensor_parallel, lower "
            "evaluation.max_completion_tokens, or choose a smaller loss.teacher.path"
        )


def _problem(config: RunConfig, found: GpuPlan, gpu_bytes: float) -> str:
    if found.crowded:
        return (
            f"the engine gets {config.engine.gpu_memory_fraction:g} of a {gpu_bytes / GIB:.1f} GiB GPU "
            f"(engine.gpu_memory_fraction), which leaves no room for one completion of {config.max_served_tokens} tokens "
            f"({config.longest_fields})"
        )
    return f"each {found.role} GPU has {gpu_bytes / GIB:.1f} GiB but needs {found.peak / GIB:.1f} {found.when}"


def advice(
    config: RunConfig,
    shape: ModelShape,
    gpu_bytes: float,
    gpu: Card | None,
    host_bytes: float | None,
    kept: Collection[str] = (),
) -> str:
    """Changes that make the run fit, as options to type, the cheapest first; those that change the training say so."""
    known = gpu or card(_UNKNOWN)
    assert known is not None
    search = Search(config, shape, gpu_bytes, known, host_bytes, kept)
    same = search.cheapest({}, most=3)
    ways = [_text(found, known) for found in same]
    gpus = max(config.max_gpus, torch.cuda.device_count())  # the recipe's, or this machine's if it has more
    more = () if "placement.num_learner_gpus" in kept else more_learners(config, gpus)
    ways += [_text(found, known, "with more GPUs") for found in _first(search, more)]
    if not same or same[0].slowdown > _SLOWER or same[0].host:
        ways += [_text(found, known, word) for found, word in _others(search, not same)]
    if not ways:
        ways = [_text(found, known, "a different task") for found in _first(search, shorter(config, kept))]
    if not ways and kept:
        return (
            f"no setting that run {config.run.name} may still change is enough on this GPU, take GPUs with more memory"
        )
    if not ways:
        return "no setting is enough, take GPUs with more memory or a smaller model"
    return f"the cheapest change that fits is {', or '.join(ways)}"


def _first(search: Search, doses: Iterable[Options]) -> list[Found]:
    """The smallest dose that fits, as a list of at most one."""
    return list(islice(filter(None, map(search.checked, doses)), 1))


def _others(search: Search, none: bool) -> Iterator[tuple[Found, str]]:
    """Changes that affect the training: adapters; if `none` else fits, also quantized engines where they are much faster."""
    config, best = search.config, math.inf
    quantized = _quantized(config) if config.rollout.quantization == "none" and none else {}
    can_adapt = not config.learner.lora.rank and search.shape.most_rank >= _RANK
    adapters: Options = {"learner.lora.rank": _RANK} if can_adapt else {}
    both = adapters | quantized if adapters and quantized else {}
    for options, word in ((adapters, _ADAPTERS), (quantized, _QUANTIZED), (both, f"{_ADAPTERS}; {_QUANTIZED}")):
        for found in search.cheapest(options) if options else ():
            if found.step_s[0] < (1 - _SLOWER) * best:
                best = found.step_s[0]
                yield found, word


def _quantized(config: RunConfig) -> Options:
    """Engines in 8 bits, with a loss that corrects for them and a probe that lets their rounding pass."""
    corrected: Options = {} if config.loss.corrects else {"loss.correction": "truncated"}
    tolerant: Options = {} if config.push.probe_tolerance >= _ROUNDED else {"push.probe_tolerance": _ROUNDED}
    return {"rollout.quantization": "fp8"} | corrected | tolerant


def _text(found: Found, gpu: Card, word: str = "") -> str:
    """Example: --learner.optimizer adamw_8bit (21.3 GiB, on A40 66 to 182 s a step, +0.2 to +0.4)"""
    typed = " ".join(f"--{field} {str(value).lower()}" for field, value in found.options.items())
    host = f" and {found.host / GIB:.1f} GiB of host memory" if found.host else ""
    seconds = "{:.0f} to {:.0f} s a step".format(*found.step_s)
    more = ", {:+.1f} to {:+.1f}".format(*found.more_s) if found.more_s else ""
    return f"{typed} ({word + ': ' if word else ''}{found.peak / GIB:.1f} GiB{host}, on {gpu.name} {seconds}{more})"
