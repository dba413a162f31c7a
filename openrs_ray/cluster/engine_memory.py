"""GPU memory of a rollout engine, part by part (docs/memory.md has the formulas)."""

import math

from openrs_ray.cluster.learner_memory import CONTEXT, Parts, itemsize, largest_bucket, merge_bytes, sent_from
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig

GRAPHS = 1.0 * GIB
"""CUDA graphs of a vLLM engine: an estimate."""
ASLEEP: Parts = {"work space": CONTEXT + GRAPHS}
"""Memory of a sleeping engine: vLLM gives back weights and cache, and empties torch's cache."""
_BLOCK = 16  # tokens in a block of vLLM's cache


def engine_parts(
    config: RunConfig, shape: ModelShape, gpu_bytes: float | None, longest: int | None = None
) -> tuple[Parts, int | None]:
    """Parts of the memory on an engine's GPU, and the number of completions that its cache holds.

    `longest`: tokens of each, with its prompt (default: of the longest that the engine is to serve).

    The cache gets what weights and a trial pass leave of `engine.gpu_memory_fraction`. A push takes two buckets on top, and with
    quantized weights also the layer that is being loaded.
    """
    engine, size = config.engine, itemsize(config)
    parts = {
        "weights": engine_weights(config, shape) / engine.tensor_parallel,
        # The sampler holds logits in the model's format and in float32, their softmax and its logarithm.
        "work space": CONTEXT
        + GRAPHS
        + engine_activations(config, shape)
        + (size + 12) * engine.max_sequences * shape.vocabulary,
    }
    per_sequence = (
        cache_bytes_per_token(config, shape) * _BLOCK * math.ceil((longest or config.max_served_tokens) / _BLOCK)
    )
    loaded = _loaded_layer(config, shape) + merge_bytes(config, shape)
    pieces = 0.0 if config.placement.colocated else sent_from(config, shape)
    buckets = 2.0 * largest_bucket(shape, config.model.dtype, config.push.bucket_mib)
    pushed = {"push buffers": buckets + pieces + loaded}
    if gpu_bytes is None:
        return parts | {"cache": per_sequence} | pushed, None
    cache = engine.gpu_memory_fraction * gpu_bytes - sum(parts.values())
    return parts | {"cache": max(0.0, cache)} | pushed, int(cache // per_sequence)


def engine_weights(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of all weights of an engine. Quantization applies to the blocks' linear layers, with a float32 scale per output."""
    whole = itemsize(config) * float(shape.parameters)
    if config.rollout.quantization == "none":
        return whole
    return whole - sum(layer.outputs * ((itemsize(config) - 1) * layer.inputs - 4) for layer in shape.linears)


def cache_bytes_per_token(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of a token's keys and values on each of an engine's GPUs."""
    heads = max(1, shape.kv_heads // config.engine.tensor_parallel)
    size = 1 if config.rollout.quantization == "fp8_kv" else itemsize(config)
    return 2 * size * shape.layers * heads * shape.head_dim


def _loaded_layer(config: RunConfig, shape: ModelShape) -> float:
    """Bytes while a quantized layer is loaded: the largest fused matrix in both formats, and as much for its proof."""
    if config.rollout.quantization == "none":
        return 0.0
    return 2.0 * (itemsize(config) + 1) * 2 * shape.intermediate * shape.hidden / config.engine.tensor_parallel


def engine_activations(config: RunConfig, shape: ModelShape) -> float:
    """Peak bytes of a pass over `engine.max_batched_tokens`, in one layer's feed-forward part or attention."""
    engine = config.engine
    feed_forward = 3 * shape.intermediate  # the fused gate and up projections, and their product
    # Queries, keys and values with their rotated copies, and the output.
    attention = shape.head_dim * (3 * shape.heads + 4 * shape.kv_heads)
    # Of the hidden size: input, residual, the part's input and its output.
    per_token = 4 * shape.hidden + max(feed_forward, attention) / engine.tensor_parallel
    return itemsize(config) * engine.max_batched_tokens * per_token
