"""GPU memory of a learner rank, part by part (docs/memory.md has the formulas)."""

from dataclasses import dataclass
from functools import cache

import torch

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig
from openrs_ray.weights.buckets import ParameterSpec, plan_buckets

BUCKET_PARAMETERS = 50_000_000
"""Elements per gradient bucket: 0.2 GB of float32, where DeepSpeed's default takes 2 GB."""
CONTEXT = 1.0 * GIB
"""CUDA context, cuBLAS workspace and NCCL: an estimate."""
_FUSED = ("llama", "qwen2")  # Families whose fused kernels save memory
_STATE = {"adamw": 12.0, "adamw_8bit": 4 + 2 * (1 + 4 / 256), "adamw_offload": 0.0}
"""Bytes per trained parameter: float32 weight and two moments, in 8 bits with a scale per block of 256."""
_PIECE, _PIECES = 32 << 20, 4
"""Bytes of a piece of a push to another GPU, and the number of slots for them, as in actors/weights/staging.py."""
PROBED = 4
"""Prompts in the probe batch of a push."""
SCORED_AT_ONCE = 128
"""Most tokens of the probe batch that have logits at once."""
AWAKE = ("in a push", "in the probe", "in a checkpoint")
"""Phases in which engines that sleep while the learner works are awake."""

Parts = dict[str, float]
"""Bytes by name."""


def trained_parameters(config: RunConfig, shape: ModelShape) -> int:
    return shape.adapters(config.learner.lora) or shape.parameters


def holds_reference(config: RunConfig) -> bool:
    """True if the learner holds a copy of the start model; with adapters, the model without them is the reference."""
    return config.needs_reference and not config.learner.lora.rank


def teacher_bytes(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of the teacher's weights, whole on every rank; 0 without one."""
    return float(itemsize(config) * shape.teacher.parameters) if shape.teacher else 0.0


def waiting_bytes(config: RunConfig, shape: ModelShape) -> float:
    """Most bytes of an update's last hidden states of an offloaded teacher, which wait in the host's memory, on all ranks."""
    if shape.teacher is None or config.loss.teacher.top_k == 0:
        return 0.0
    learned = config.completions_per_step * config.rollout.max_completion_tokens / config.learner.updates_per_batch
    return itemsize(config) * shape.teacher.hidden * learned


def merge_bytes(config: RunConfig, shape: ModelShape) -> float:
    """Bytes while an adapter is merged into its matrix: the float32 sum, its rounding and the result."""
    return (8 + 2 * itemsize(config)) * float(
        max((layer.elements for layer in shape.adapted(config.learner.lora)), default=0)
    )


@dataclass(frozen=True, slots=True)
class _Zero:
    """Bytes that DeepSpeed's ZeRO holds beside weights and optimizer state."""

    at_rest: float
    """Bytes of gradients at all times; the next two come on top in their phases."""
    in_backward: float
    in_step: float
    reduction: float
    """Bytes of a gradient that is being reduced, and of its bucket."""
    buffer: float = 0.0
    """Bytes of the buffer through which gradients go to the host's memory."""


def learner_phases(config: RunConfig, shape: ModelShape, checkpointing: bool) -> dict[str, Parts]:
    """Parts of the memory on a learner GPU, by phase of a step."""
    ranks, size, stage = config.placement.num_learner_gpus, itemsize(config), config.learner.zero_stage
    held, reference = shape.parameters + shape.adapters(config.learner.lora), size * shape.parameters
    zero, away = _zero(config, shape), config.learner.offload_reference
    teacher, teacher_away = teacher_bytes(config, shape), config.loss.teacher.offload
    rest = {
        "weights": size * (held / ranks if stage == 3 else held),
        "reference": reference if holds_reference(config) and not away else 0.0,
        "teacher": teacher if not teacher_away else 0.0,
        "optimizer": _STATE[config.learner.optimizer] * trained_parameters(config, shape) / ranks,
        "gradients": zero.at_rest,
        "offload buffer": zero.buffer,
        "push buffer": sent_from(config, shape),
        "CUDA": CONTEXT,
    }
    gathers = stage == 3 and ranks > 1
    whole = size * held if gathers else 0.0
    saved, work, head = activations(config, shape, checkpointing)
    backward = {
        "gradients": zero.at_rest + zero.in_backward,
        "gathered weights": whole,
        "activations": saved,
        "work space": max(head, work + zero.reduction),
    }
    phases = {
        "in the backward pass": rest | backward,
        "in the optimizer step": rest | {"gradients": zero.at_rest + zero.in_step},
        "in a push": rest | {"gathered weights": float(_bucket(config, shape)) if gathers else 0.0},
        "in the probe": rest | {"gathered weights": whole, "work space": _probe_work(config, shape)},
        # DeepSpeed keeps what it gathered for the probe until the next backward pass.
        "in a checkpoint": rest | {"gathered weights": whole, "work space": merge_bytes(config, shape)},
    }
    if holds_reference(config) and away:
        visit = {"reference": reference, "work space": _scoring_work(config, shape)}
        phases["in the reference pass"] = rest | visit
    if shape.teacher and teacher_away:
        head = _teacher_head(config, shape.teacher)
        phases["in the backward pass"]["teacher"] = head
        work = _scoring_work(config, shape.teacher)
        phases["in the teacher's pass"] = rest | {"teacher": teacher + head, "work space": work}
    return phases


def _zero(config: RunConfig, shape: ModelShape) -> _Zero:
    learner, count, size = config.learner, trained_parameters(config, shape), itemsize(config)
    stage, mixed, share = learner.zero_stage, size == 2, count / config.placement.num_learner_gpus
    adapters = (learner.lora.rank * max(layer.outputs, layer.inputs) for layer in shape.adapted(learner.lora))
    largest = max(adapters, default=shape.largest)
    # A gradient waits in its own format and is sent in float32; two buckets, because sending overlaps computing.
    reduction = (6.0 if mixed else 4.0) * max(largest, BUCKET_PARAMETERS) + 2 * size * BUCKET_PARAMETERS
    if learner.optimizer == "adamw_offload":
        if stage == 3:
            return _Zero(0.0, 4.0 * largest, 0.0, reduction, 4.0 * BUCKET_PARAMETERS)
        more = 4.0 * count if stage == 1 and mixed else 0.0
        return _Zero(0.0, 4 * share + more, 4 * share if mixed else 0.0, reduction, float(size * largest))
    if stage == 3:
        return _Zero(4 * (share + BUCKET_PARAMETERS), 0.0, 4 * share, reduction)
    if stage == 1:
        return (
            _Zero(4.0 * count, 2.0 * count, 2.0 * count, reduction)
            if mixed
            else _Zero(0.0, 4.0 * count, 8 * share, reduction)
        )
    if mixed:  # a gradient's norm is computed in float64
        return _Zero(0.0, 4 * share, 4 * share + 8 * largest, reduction)
    return _Zero(0.0, 4 * share, 8 * share, reduction + 4 * share)  # this micro-batch's gradients beside the sum


def _teacher_head(config: RunConfig, teacher: ModelShape) -> float:
    """Bytes of the output head, of which a copy stays when the rest of an offloaded teacher has left."""
    return float(itemsize(config) * teacher.vocabulary * teacher.hidden) if config.loss.teacher.top_k else 0.0


def offload_buffer(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of the buffer through which gradients go to the host's memory; each side has one."""
    return _zero(config, shape).buffer if config.learner.zero_stage < 3 else 0.0


def _probe_work(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of work space while the probe batch is scored; adapters are merged layer by layer."""
    tokens = min(PROBED * config.rollout.max_prompt_tokens, config.micro_batch_tokens)
    layer = _forward_work(config, shape, tokens) + merge_bytes(config, shape)
    return max(layer, _scoring_head(config, shape, min(tokens, SCORED_AT_ONCE)))


def _scoring_work(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of work space of a pass that keeps nothing for a backward pass."""
    tokens = config.micro_batch_tokens
    return max(_forward_work(config, shape, tokens), _scoring_head(config, shape, tokens))


def _forward_work(config: RunConfig, shape: ModelShape, tokens: int) -> float:
    """Bytes of work space of a layer when nothing is kept for a backward pass."""
    return float(itemsize(config) * tokens * (4 * shape.hidden + 3 * shape.intermediate))


def _scoring_head(config: RunConfig, shape: ModelShape, tokens: int) -> float:
    """Bytes of the head without gradients: a chunk's float32 logits and as much work space."""
    return 8.0 * min(config.learner.logprob_chunk_tokens, tokens) * shape.vocabulary


def activations(config: RunConfig, shape: ModelShape, checkpointing: bool) -> tuple[float, float, float]:
    """Bytes for a full micro-batch: saved activations, and work space of one layer's backward pass and of the head's."""
    size, tokens = itemsize(config), config.micro_batch_tokens
    fused = config.learner.fused_kernels and shape.family in _FUSED
    hidden, intermediate = shape.hidden, shape.intermediate
    # A plain norm keeps its input in float32, the normalised values and its output; a fused one input and output.
    norm = (2 * size if fused else 2 * size + 4) * hidden
    attention = 2 * size * shape.head_dim * (shape.heads + shape.kv_heads) + 4 * shape.heads
    layer = 2 * norm + attention + (3 if fused else 4) * size * intermediate
    work = (1 if fused else 2) * size * (intermediate + hidden) + (layer if checkpointing else 0)
    kept = 1 if config.learner.offload_activations else shape.layers
    saved = kept * (size * hidden if checkpointing else layer) + norm
    # The weight's gradient in float32; beside it a chunk's logits and their gradient, or that gradient and a chunk's share.
    weight = shape.vocabulary * hidden
    chunk = min(config.learner.logprob_chunk_tokens, tokens) * shape.vocabulary
    logits_size = 4 if config.learner.head_dtype == "float32" else size
    head: float = size * chunk + logits_size * chunk
    if not config.learner.lora.rank:
        head = 4 * weight + size * chunk + max(logits_size * chunk, size * weight)
    if config.loss.uses_entropy:  # a chunk's probabilities, beside its log-probabilities
        head += 4 * chunk
    if shape.teacher and config.loss.teacher.top_k:  # which works in float32, and compares with the teacher's chunk
        head = max(head + (4 - logits_size + size) * chunk, _scoring_head(config, shape.teacher, tokens))
    return saved * tokens, work * tokens + merge_bytes(config, shape), head


def kept_on_host(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of a micro-batch's offloaded activations: the input of every layer but the one being recomputed."""
    if not config.learner.offload_activations:
        return 0.0
    return float(itemsize(config) * (shape.layers - 1) * shape.hidden * config.micro_batch_tokens)


@cache
def largest_bucket(shape: ModelShape, dtype: str, bucket_mib: int) -> int:
    """Bytes of the largest bucket of a push."""
    specs = [ParameterSpec("", dtype, each) for each in shape.parameter_shapes]
    return max(bucket.nbytes for bucket in plan_buckets(specs, bucket_mib << 20))


def sent_from(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of a push at the sender: a bucket that engines on the same GPU read, or four slots for pieces."""
    largest = _bucket(config, shape)
    return float(largest if config.placement.colocated else _PIECES * min(_PIECE, largest))


def _bucket(config: RunConfig, shape: ModelShape) -> int:
    return largest_bucket(shape, config.model.dtype, config.push.bucket_mib)


def itemsize(config: RunConfig) -> int:
    return int(getattr(torch, config.model.dtype).itemsize)
