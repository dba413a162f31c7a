"""The output head over chunks of tokens: logits, and gradients from those of the logits."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def logits_of(
    hidden: Float[Tensor, "tokens hidden"], weight: Float[Tensor, "vocabulary hidden"], dtype: torch.dtype
) -> Float[Tensor, "tokens vocabulary"]:
    """Summed and given in `dtype`."""
    if dtype == weight.dtype:
        return F.linear(hidden, weight)
    if hidden.is_cuda:  # on tensor cores, which sum in float32 anyway; as vLLM does it
        return torch.mm(hidden, weight.t(), out_dtype=dtype)
    return F.linear(hidden.to(dtype), weight.to(dtype))


def head_gradients(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocabulary hidden"],
    slope_of: Callable[[slice, Tensor], Float[Tensor, "tokens vocabulary"]],
    chunk_tokens: int,
    logits_dtype: torch.dtype,
    of_weight: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the hidden states and, if wanted, of the weight.

    `slope_of` gives the gradient of a chunk's logits in the weight's format; it may overwrite the logits.
    """
    hidden_gradient = torch.empty_like(hidden)
    # float32 even for a bfloat16 weight, because many small chunks are summed
    weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
    for start in range(0, len(hidden), chunk_tokens):
        chunk = slice(start, start + chunk_tokens)
        logits = logits_of(hidden[chunk], weight, logits_dtype)
        slope = slope_of(chunk, logits)
        del logits  # not beside what comes next, which is as large
        torch.mm(slope, weight, out=hidden_gradient[chunk])
        if weight_gradient is not None and weight.dtype == torch.float32:
            weight_gradient.addmm_(slope.T, hidden[chunk])
        elif weight_gradient is not None:
            weight_gradient += slope.T @ hidden[chunk]
        del slope
    return hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype)
