"""Causal attention over packed sequences by torch's FlashAttention, whose options differ between versions."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor

Attention = Callable[..., Tensor]


def causal_attention(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    cumulative: Int[Tensor, " sequences_plus_1"],
    longest: int,
    scale: float | None,
    attention: Attention | None = None,
) -> Float[Tensor, "tokens heads head_dim"]:
    """Each sequence attends to itself only; `cumulative` are their ends. GPUs, bfloat16 or float16."""
    if attention is None:
        from torch.nn.attention.varlen import varlen_attn

        attention = cast(Attention, varlen_attn)
    known = options(attention)
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    grouped = {}
    if (shared_by := query.shape[1] // key.shape[1]) > 1:
        if "enable_gqa" in known:
            grouped = {"enable_gqa": True}
        else:
            key, value = (tensor.repeat_interleave(shared_by, dim=1) for tensor in (key, value))
    return attention(query, key, value, cumulative, cumulative, longest, longest, scale=scale, **causal, **grouped)


@cache
def options(attention: Attention) -> frozenset[str]:
    return frozenset(inspect.signature(attention).parameters)
