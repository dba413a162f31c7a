"""Parts attention and head: the two kernels of the learner that are not PyTorch's plain ones, against float64."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from statistics import median

import torch
from torch import Tensor

from launch.performance.gpu_suite.rows import Row, Size, at_most, noted
from openrs_ray.algorithm.policy import ChunkedLogprobs, packed_arguments, packed_attention
from openrs_ray.config.learner import HeadDtype

_SHAPES = ((12, 2, 128), (9, 3, 64), (2, 1, 32))
"""Heads, key heads and head dimension of DeepSeek-R1-Distill-Qwen-1.5B, SmolLM2-135M and the toy."""
_LENGTHS = {"full": (1, 2, 63, 64, 65, 1000, 4096), "tiny": (1, 2, 17, 40)}
_ATTENTION_ERROR = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
"""Of a norm, relative. A number in bfloat16 is rounded by up to 0.4 %."""
_TEMPERATURE, _CHUNK = 0.7, 2048
_HEAD_ERROR: dict[HeadDtype, float] = {"float32": 1e-5, "model": 1e-2}
"""Of a log-probability, absolute, by the format of the logits; the model is in bfloat16."""


def attention(size: Size) -> Iterator[Row]:
    """One micro-batch with sequences of every length; the worst of them counts."""
    device, lengths = _device(size), _LENGTHS[size]
    for heads, kv_heads, dim in _SHAPES:
        for dtype, bound in _ATTENTION_ERROR.items():
            inputs, slope = _attention_inputs(heads, kv_heads, dim, sum(lengths), dtype, device)
            got = _packed(inputs, slope, lengths)
            worst = [0.0, 0.0, 0.0, 0.0]
            for begin, end in pairwise(accumulate(lengths, initial=0)):
                expected = _written_out([tensor[:, :, begin:end] for tensor in inputs], slope[:, begin:end])
                ours = (got[0][:, begin:end], *(tensor[:, :, begin:end] for tensor in got[1:]))
                worst = [max(pair) for pair in zip(worst, map(_error, ours, expected), strict=True)]
            name = f"{heads}/{kv_heads} x {dim}, {str(dtype).removeprefix('torch.')}"
            yield at_most(f"{name}, output", worst[0], bound)
            yield at_most(f"{name}, worst gradient of query, key, value", max(worst[1:]), 2 * bound)


def _attention_inputs(
    heads: int, kv_heads: int, dim: int, tokens: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator(device).manual_seed(heads)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    return [random(1, n, tokens, dim) for n in (heads, kv_heads, kv_heads)], random(1, tokens, heads, dim)


def _packed(inputs: list[Tensor], slope: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Output and gradients, as the model calls it."""
    query, key, value = leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    arguments = packed_arguments(lengths, slope.device)
    output, _ = packed_attention(torch.nn.Module(), query, key, value, None, **arguments)
    return output.detach(), *torch.autograd.grad(output, leaves, slope)


def _written_out(inputs: list[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    """The same for one sequence, in float64 with all its scores."""
    query, key, value = leaves = [tensor.double().requires_grad_() for tensor in inputs]
    shared_by = query.shape[1] // key.shape[1]
    keys, values = (tensor.repeat_interleave(shared_by, dim=1) for tensor in (key, value))
    scores = query @ keys.transpose(2, 3) / math.sqrt(query.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    output = (scores.masked_fill(later, -math.inf).softmax(-1) @ values).transpose(1, 2)
    return output.detach(), *torch.autograd.grad(output, leaves, slope.double())


def _error(ours: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm; over 1 where that is smaller, as the gradients of a single token's scores are: 0."""
    return float((ours.double() - expected).norm() / expected.norm().clamp(min=1.0))


def head(size: Size) -> Iterator[Row]:
    """The output head of a 1.5B model on one micro-batch, with logits of either format."""
    device = _device(size)
    tokens, hidden_size, vocabulary = (4096, 1536, 151_936) if size == "full" else (24, 64, 512)
    torch.manual_seed(0)
    hidden = torch.randn(tokens, hidden_size, device=device).bfloat16()
    weight = torch.nn.Parameter(
        (torch.randn(vocabulary, hidden_size, device=device) / math.sqrt(hidden_size)).bfloat16()
    )
    targets, slope = torch.randint(vocabulary, (tokens,), device=device), torch.randn(tokens, device=device)
    inputs = hidden, weight, targets, slope
    expected, of_entropies = (_head_written_out(*inputs, entropies) for entropies in (False, True))
    for head_dtype, bound in _HEAD_ERROR.items():
        yield from _one_head(head_dtype, bound, inputs, expected, size)
        yield from _entropies(head_dtype, bound, inputs, of_entropies)


def _one_head(
    head_dtype: HeadDtype,
    bound: float,
    inputs: tuple[Tensor, torch.nn.Parameter, Tensor, Tensor],
    expected: tuple[Tensor, ...],
    size: Size,
) -> Iterator[Row]:
    hidden, weight, targets, slope = inputs
    device, tokens = hidden.device, len(hidden)
    chunk = min(_CHUNK, tokens // 3)  # more than two, and a last one of another length
    module = ChunkedLogprobs(weight, chunk, head_dtype)

    def forward() -> Tensor:
        logprobs: Tensor = module(hidden.requires_grad_(), targets, _TEMPERATURE)
        return logprobs

    def both() -> tuple[Tensor, ...]:
        value = forward()
        return value.detach(), *torch.autograd.grad(value, (hidden, weight), slope)

    first_s = _seconds(both, device)
    got, of = both(), f"{head_dtype} logits"
    yield at_most(f"{of}: log-probabilities, mean error", float((got[0].double() - expected[0]).abs().mean()), bound)
    for name, ours, its in zip(("hidden states", "weight"), got[1:], expected[1:], strict=True):
        yield at_most(f"{of}: gradient of the {name}", _error(ours, its), 2e-2)
    usual_s = median(_seconds(both, device) for _ in range(5))
    with torch.no_grad():
        forward_s = median(_seconds(forward, device) for _ in range(5))
    compiling = "first call, with compiling" if size == "full" else "first call, not compiled on a CPU"
    yield noted(f"{of}: {compiling}", first_s, "s")
    yield noted(f"{of}: forward, {tokens:,} tokens, vocabulary {len(weight):,}", 1000 * forward_s, "ms")
    yield noted(f"{of}: forward and backward", 1000 * usual_s, "ms")
    hidden, targets, slope = (tensor.detach()[: tokens // 2 + 1] for tensor in (hidden, targets, slope))
    yield noted(f"{of}: first call with another number of tokens", _seconds(both, device), "s")


def _entropies(
    head_dtype: HeadDtype,
    bound: float,
    inputs: tuple[Tensor, torch.nn.Parameter, Tensor, Tensor],
    expected: tuple[Tensor, ...],
) -> Iterator[Row]:
    """The same for the entropies beside the log-probabilities, and the memory that they add."""
    hidden, weight, targets, slope = inputs
    device, of = hidden.device, f"{head_dtype} logits, entropies"
    module = ChunkedLogprobs(weight, min(_CHUNK, len(hidden) // 3), head_dtype)

    def both(entropies: bool) -> tuple[Tensor, ...]:
        found = module(hidden.requires_grad_(), targets, _TEMPERATURE, entropies)
        value = found[1] if entropies else found
        return value.detach(), *torch.autograd.grad(value, (hidden, weight), slope)

    got = both(True)
    yield at_most(f"{of}: mean error", float((got[0].double() - expected[0]).abs().mean()), bound)
    for name, ours, its in zip(("hidden states", "weight"), got[1:], expected[1:], strict=True):
        yield at_most(f"{of}: gradient of the {name}", _error(ours, its), 2e-2)
    if device.type == "cuda":
        more = _peak_bytes(lambda: both(True), device) - _peak_bytes(lambda: both(False), device)
        yield noted(f"{of}: memory beside the log-probabilities", more / 2**20, "MiB")


def _peak_bytes(act: Callable[[], object], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    act()
    return torch.cuda.max_memory_allocated(device)


def _head_written_out(
    hidden: Tensor, weight: Tensor, targets: Tensor, slope: Tensor, entropies: bool
) -> tuple[Tensor, ...]:
    """Log-probabilities or entropies and their gradients in float64, a few hundred tokens at a time."""
    table = weight.detach().double()
    values, hidden_slopes, weight_slope = [], [], torch.zeros_like(table)
    for rows, wanted, factor in zip(*(tensor.detach().split(256) for tensor in (hidden, targets, slope)), strict=True):
        states, leaf = rows.double().requires_grad_(), table.detach().requires_grad_()
        logprobs = (states @ leaf.T / _TEMPERATURE).log_softmax(-1)
        chosen = -(logprobs.exp() * logprobs).sum(-1) if entropies else logprobs.gather(-1, wanted[:, None])[:, 0]
        mine, its = torch.autograd.grad(chosen, (states, leaf), factor.double())
        values.append(chosen.detach())
        hidden_slopes.append(mine)
        weight_slope += its
    return torch.cat(values), torch.cat(hidden_slopes), weight_slope


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    act()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(size: Size) -> torch.device:
    return torch.device("cuda:0" if size == "full" else "cpu")
