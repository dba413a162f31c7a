"""The signatures that torch's variable-length attention has had, each held to attention written out in float64."""

import math
from typing import Any

import pytest
import torch

from openrs_ray.algorithm.varlen import causal_attention, options

LENGTHS = (1, 5, 17)


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor, scale: float) -> torch.Tensor:
    """As the kernel: as many heads of keys as of queries, causal, sequence by sequence."""
    assert q.shape == k.shape == v.shape
    parts = []
    for begin, end in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        mine, keys, values = (tensor[begin:end].transpose(0, 1) for tensor in (q, k, v))
        scores = mine @ keys.transpose(1, 2) * scale
        scores = scores.masked_fill(torch.ones_like(scores[0], dtype=torch.bool).triu(1), -math.inf)
        parts.append((scores.softmax(-1) @ values).transpose(0, 1))
    return torch.cat(parts)


def now(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    assert window_size == (-1, 0) and cu_seq_q is cu_seq_k and max_q == max_k == max(LENGTHS)
    assert enable_gqa == (query.shape[1] != key.shape[1])
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
    return flash(query, key, value, cu_seq_q, scale or query.shape[-1] ** -0.5)


def without_gqa(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:  # fmt: skip
    assert window_size == (-1, 0)
    return flash(query, key, value, cu_seq_q, scale or query.shape[-1] ** -0.5)


def first(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: Any = None, scale: float | None = None,
) -> torch.Tensor:  # fmt: skip
    assert is_causal and return_aux is None
    return flash(query, key, value, cu_seq_q, scale or query.shape[-1] ** -0.5)


@pytest.mark.parametrize("attention", [now, without_gqa, first])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (2, 1), (3, 3)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_every_signature_gives_the_same(attention: Any, heads: int, kv_heads: int, scale: float | None) -> None:
    """Query head h reads key head h // (heads / kv_heads), as transformers and vLLM have it."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(LENGTHS), n, 8, dtype=torch.float64) for n in (heads, kv_heads, kv_heads))
    ends = torch.tensor((0, *LENGTHS)).cumsum(0, dtype=torch.int32)
    got = causal_attention(q, k, v, ends, max(LENGTHS), scale, attention)
    each = torch.arange(heads) // (heads // kv_heads)
    expected = flash(q, k[:, each], v[:, each], ends, scale or 8**-0.5)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)


def test_the_installed_torch_has_a_signature_that_is_known() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    known = options(varlen.varlen_attn)
    assert "scale" in known and {"window_size", "is_causal"} & known
