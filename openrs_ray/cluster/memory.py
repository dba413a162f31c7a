"""GPU memory of a run, part by part (docs/performance.md has the formulas).

Nothing was measured on a GPU yet: `_CONTEXT` and `_GRAPHS` are estimates, and `ROOM` stands for fragmentation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PretrainedConfig

from openrs_ray.cluster.probes import planned_gpus
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.pretrained import empty_model
from openrs_ray.weights.buckets import ParameterSpec, plan_buckets

BUCKET_PARAMETERS = 50_000_000
"""Elements per gradient bucket: 0.2 GB of float32, where DeepSpeed's default takes 2 GB."""
ROOM = 0.92
"""Above this share of a GPU a plan may fit or not."""
_CONTEXT = 1.0 * GIB  # CUDA context, cuBLAS workspace and NCCL
_GRAPHS = 1.0 * GIB  # CUDA graphs of a vLLM engine
_FUSED = ("llama", "qwen2")  # Families whose fused kernels save memory

Parts = dict[str, float]
"""Bytes by name."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parameter_shapes: tuple[tuple[int, ...], ...]
    """In push order; tied ones once."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "ModelShape":
        """Shape without allocating weights. UserError unless it is a causal language model."""
        model = empty_model(config)
        text = config.get_text_config()
        hidden, heads = text.hidden_size, text.num_attention_heads
        return cls(
            family=config.model_type,
            hidden=hidden,
            intermediate=getattr(text, "intermediate_size", None) or 4 * hidden,
            layers=text.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or hidden // heads,
            vocabulary=text.vocab_size,
            parameter_shapes=tuple(tuple(parameter.shape) for parameter in model.parameters()),
        )

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.parameter_shapes))

    @property
    def largest(self) -> int:
        """Elements of the largest parameter."""
        return max(map(math.prod, self.parameter_shapes))


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
    if config.learner.gradient_checkpointing != "auto":
        return config.learner.gradient_checkpointing
    return gpu_bytes is None or _plan(config, shape, gpu_bytes, False)[0].peak > ROOM * gpu_bytes


def check_fits(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> None:
    """UserError when the run cannot fit, with the changes that would help."""
    if gpu_bytes is None:
        return
    share = config.engine.gpu_memory_fraction
    for number, found in enumerate(plan(config, shape, gpu_bytes)):
        if found.fits(gpu_bytes):
            continue
        if found.crowded:
            problem = (
                f"the engine gets {share:g} of a {gpu_bytes / GIB:.1f} GiB GPU (engine.gpu_memory_fraction), which leaves no "
                f"room for one completion of {config.max_sequence_tokens} tokens"
            )
        else:
            problem = (
                f"each {found.role} GPU has {gpu_bytes / GIB:.1f} GiB but needs {found.peak / GIB:.1f} {found.when}"
            )
        raise UserError(f"{problem} ({_listed(found.parts)}): {_advice(config, shape, gpu_bytes, number)}")


def _advice(config: RunConfig, shape: ModelShape, gpu_bytes: float, number: int) -> str:
    """Settings of which one is enough, in its smallest dose; else those that are enough together."""

    def after(changed: RunConfig) -> GpuPlan:
        return plan(changed, shape, gpu_bytes)[number]

    enough: dict[str, str] = {}
    named: dict[str, str] = {}
    together = config
    most = max(config.max_gpus, torch.cuda.device_count())  # of the recipe, or of this machine where it has more
    for field, value in _changes(config, most):
        if (alone := _with(config, field, value)) and after(alone).fits(gpu_bytes):
            enough.setdefault(field, f"{field} {value}")
        more = None if after(together).fits(gpu_bytes) else _with(together, field, value)
        if more and after(more).peak < after(together).peak:
            together, named = more, named | {field: f"{field} {value}"}
    if enough:
        return f"set {', or '.join(enough.values())}"
    if after(together).fits(gpu_bytes):
        return f"set {' and '.join(named.values())}"
    return "no setting is enough, take GPUs with more memory or a smaller model"


def _changes(config: RunConfig, gpus: int) -> Iterator[tuple[str, Any]]:
    """Changes that may save memory; the least costly first, in growing doses."""
    rollout, engine, place = config.rollout, config.engine, config.placement
    free = gpus - config.num_gpus
    doses = [2, 4, 8, 16]
    for by in doses:
        yield "learner.micro_batch_tokens", max(config.learner.micro_batch_tokens // by, config.max_sequence_tokens)
    yield "learner.gradient_checkpointing", "true"
    if place.colocated:
        yield "rollout.sleep_while_learning", "true"
    yield from (("learner.zero_stage", stage) for stage in (2, 3) if stage > config.learner.zero_stage)
    yield from (("engine.gpu_memory_fraction", each) for each in (0.9, 0.95) if each > engine.gpu_memory_fraction)
    yield from (("engine.gpu_memory_fraction", each) for each in (0.5, 0.4, 0.3) if each < engine.gpu_memory_fraction)
    yield from (("engine.max_sequences", engine.max_sequences // by) for by in doses)
    yield "engine.tensor_parallel", place.num_rollout_gpus
    yield from (("placement.num_learner_gpus", place.num_learner_gpus + more) for more in (1, 2, 4) if more <= free)
    yield from (("rollout.max_completion_tokens", rollout.max_completion_tokens // by) for by in doses)


def _with(config: RunConfig, field: str, value: Any) -> RunConfig | None:
    """The changed config; None where invalid."""
    section, name = field.split(".")
    raw = config.model_dump()
    raw[section][name] = value
    try:
        return RunConfig.model_validate(raw)
    except ValidationError:
        return None


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
            text += f", {max(0, found.sequences)} completions of {config.max_sequence_tokens} tokens at once"
        lines += [text, f"    {_listed(found.parts)}"]
    return lines


def _listed(parts: Parts) -> str:
    return " + ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())


def planned_gpu_bytes(config: RunConfig, this_machine: bool = True) -> float | None:
    """Memory as configured, or this machine's smallest; None on a CPU or if unknown."""
    place = config.placement
    found = [gpu.total_mib * 2.0**20 for gpu in planned_gpus(place.device)] if this_machine else []
    if place.gpu_memory_gib is not None and (place.device == "gpu" or found):
        return place.gpu_memory_gib * GIB
    return min(found, default=None)


def _plan(config: RunConfig, shape: ModelShape, gpu_bytes: float | None, checkpointing: bool) -> list[GpuPlan]:
    phases = learner_phases(config, shape, checkpointing)
    engine, sequences = engine_parts(config, shape, gpu_bytes)
    if not config.placement.colocated:
        return [_peak("learner", phases), GpuPlan("rollout", engine, "in a push", sequences)]
    for when, parts in phases.items():
        sleeps = config.rollout.sleep_while_learning and when != "in a push"
        parts |= {f"engine's {name}": size for name, size in engine.items() if name == "work space" or not sleeps}
    return [_peak("shared", phases, sequences)]


def _peak(role: str, phases: dict[str, Parts], sequences: int | None = None) -> GpuPlan:
    when = max(phases, key=lambda name: sum(phases[name].values()))
    return GpuPlan(role, {name: size for name, size in phases[when].items() if size}, when, sequences)


def learner_phases(config: RunConfig, shape: ModelShape, checkpointing: bool) -> dict[str, Parts]:
    """Parts on a learner GPU."""
    learner, count, ranks = config.learner, shape.parameters, config.placement.num_learner_gpus
    size = itemsize(config)
    stage, mixed, share = learner.zero_stage, size == 2, count / ranks
    rest = {
        "weights": size * (share if stage == 3 else count),
        "reference": size * count if config.loss.kl_beta > 0 else 0.0,
        "optimizer": 12 * share,
        "gradients": 4 * (share + BUCKET_PARAMETERS) if stage == 3 else 4.0 * count if stage == 1 and mixed else 0.0,
        "push buffer": _largest_bucket(config, shape),
        "CUDA": _CONTEXT,
    }
    if stage == 3:
        in_backward, in_step = 0.0, 4 * share
    elif mixed:  # the norm of a gradient is taken in float64
        in_backward, in_step = (2.0 * count, 2.0 * count) if stage == 1 else (4 * share, 4 * share + 8 * shape.largest)
    else:
        in_backward, in_step = (4.0 * count if stage == 1 else 4 * share), 8 * share
    saved, work, head = activations(config, shape, checkpointing)
    # A gradient waits in its own format and is sent in float32; two buckets, because sending overlaps computing.
    reduction: float = (6 if mixed else 4) * max(shape.largest, BUCKET_PARAMETERS) + 2 * size * BUCKET_PARAMETERS
    if stage == 2 and not mixed:
        reduction += 4 * share  # this micro-batch's gradients beside the sum
    backward = {
        "gradients": rest["gradients"] + in_backward,
        "gathered weights": size * count if stage == 3 and ranks > 1 else 0.0,
        "activations": saved,
        "work space": max(head, work + reduction),
    }
    return {
        "in the backward pass": rest | backward,
        "in the optimizer step": rest | {"gradients": rest["gradients"] + in_step},
        "in a push": rest,
    }


def activations(config: RunConfig, shape: ModelShape, checkpointing: bool) -> tuple[float, float, float]:
    """Bytes for a full micro-batch: saved activations; work of one layer's backward pass; of the head's."""
    size, tokens = itemsize(config), config.micro_batch_tokens
    fused = config.learner.fused_kernels and shape.family in _FUSED
    hidden, intermediate = shape.hidden, shape.intermediate
    # A plain norm keeps its input in float32, the normalised values and its output; a fused one input and output.
    norm = (2 * size if fused else 2 * size + 4) * hidden
    attention = 2 * size * shape.head_dim * (shape.heads + shape.kv_heads) + 4 * shape.heads
    layer = 2 * norm + attention + (3 if fused else 4) * size * intermediate
    work = (1 if fused else 2) * size * (intermediate + hidden) + (layer if checkpointing else 0)
    saved = shape.layers * (size * hidden if checkpointing else layer) + norm
    # The gradient of the weight, summed in float32; beside it a chunk's logits with their gradient, or that with its share.
    weight = shape.vocabulary * hidden
    chunk = min(config.learner.logprob_chunk_tokens, tokens) * shape.vocabulary
    logits_size = 4 if config.learner.head_dtype == "float32" else size
    head = 4 * weight + size * chunk + max(logits_size * chunk, size * weight)
    return saved * tokens, work * tokens, head


def engine_parts(config: RunConfig, shape: ModelShape, gpu_bytes: float | None) -> tuple[Parts, int | None]:
    """Parts on an engine's GPU, and the completions of full length that its cache holds.

    The cache is what weights and a trial pass leave of `engine.gpu_memory_fraction`. A push takes two buckets on top.
    """
    engine, size = config.engine, itemsize(config)
    parts = {
        "weights": size * shape.parameters / engine.tensor_parallel,
        # The sampler's logits in the model's format and in float32, their softmax and its logarithm.
        "work space": _CONTEXT
        + _GRAPHS
        + engine_activations(config, shape)
        + (size + 12) * engine.max_sequences * shape.vocabulary,
    }
    heads = max(1, shape.kv_heads // engine.tensor_parallel)
    per_token = 2 * size * shape.layers * heads * shape.head_dim
    per_sequence = per_token * 16 * math.ceil(config.max_sequence_tokens / 16)  # vLLM's blocks of 16 tokens
    pushed = {"push buffers": 2.0 * _largest_bucket(config, shape)}
    if gpu_bytes is None:
        return parts | {"cache": per_sequence} | pushed, None
    cache = engine.gpu_memory_fraction * gpu_bytes - sum(parts.values())
    return parts | {"cache": max(0.0, cache)} | pushed, int(cache // per_sequence)


def engine_activations(config: RunConfig, shape: ModelShape) -> float:
    """Peak bytes of a pass over `engine.max_batched_tokens`, in one layer's feed-forward part or attention."""
    engine = config.engine
    feed_forward = 3 * shape.intermediate  # the fused gate and up projections, and their product
    # Queries, keys and values with their rotated copies, and the output.
    attention = shape.head_dim * (3 * shape.heads + 4 * shape.kv_heads)
    # Of the hidden size: input, residual, into the part and out of it.
    per_token = 4 * shape.hidden + max(feed_forward, attention) / engine.tensor_parallel
    return itemsize(config) * engine.max_batched_tokens * per_token


def _largest_bucket(config: RunConfig, shape: ModelShape) -> int:
    specs = [ParameterSpec("", config.model.dtype, each) for each in shape.parameter_shapes]
    return max(bucket.nbytes for bucket in plan_buckets(specs, config.push.bucket_mib << 20))


def itemsize(config: RunConfig) -> int:
    return int(getattr(torch, config.model.dtype).itemsize)
