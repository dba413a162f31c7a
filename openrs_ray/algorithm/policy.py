"""The learner's policy: packed sequences in, log-probabilities of their sampled tokens out.

Sequences never see each other; logits exist for one chunk of tokens at a time.
"""

import sys
from collections.abc import Callable
from functools import cache
from inspect import isfunction
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from openrs_ray.algorithm.distillation import DistilledLogprobs, TeacherView
from openrs_ray.algorithm.head import head_gradients, logits_of
from openrs_ray.algorithm.packing import MicroBatch
from openrs_ray.algorithm.varlen import causal_attention
from openrs_ray.common.foreign import reading
from openrs_ray.config.learner import HeadDtype, Lora
from openrs_ray.errors import UserError
from openrs_ray.models.attention import check_attention
from openrs_ray.models.lora import attach
from openrs_ray.models.pretrained import read_model

if TYPE_CHECKING:
    from peft import LoraConfig

ATTENTION = "openrs_packed"

LogprobsAndMore = Float[Tensor, " tokens"] | tuple[Float[Tensor, " tokens"], ...]
"""Log-probabilities, a pair of these and of entropies, or what `Distilled` has."""

Shared = tuple[Int[Tensor, " places"], Int[Tensor, " rows"]]
"""Shared rows: the row of each token of the sequences (place), and the first place of each row."""


class Policy(nn.Module):
    """A causal language model that gives log-probabilities at a temperature, without dropout.

    Its parameters are those of `model` under the prefix `model.`; tied ones appear once.
    """

    def __init__(self, model: PreTrainedModel, chunk_tokens: int, head_dtype: HeadDtype = "float32") -> None:
        super().__init__()
        self.model = model
        self.head = ChunkedLogprobs(model.get_output_embeddings().weight, chunk_tokens, head_dtype)

    def forward(
        self,
        token_ids: Int[Tensor, " tokens"],
        position_ids: Int[Tensor, " tokens"],
        lengths: tuple[int, ...],
        predictors: Int[Tensor, " completion_tokens"],
        targets: Int[Tensor, " completion_tokens"],
        temperature: float,
        shared: "Shared | None" = None,
        entropies: bool = False,
        teacher: TeacherView | None = None,
        top_k: int = 0,
    ) -> LogprobsAndMore:
        """Log-probability of each target, float32, computed from the row of the token before it.

        With `entropies` a pair: beside it the entropy of the whole distribution, in nats. With a teacher all of `Distilled`, over
        `top_k` tokens.
        """
        hidden = self.hidden(token_ids, position_ids, lengths, predictors, shared)
        found: LogprobsAndMore = self.head(hidden, targets, temperature, entropies, teacher, top_k)
        return found

    def hidden(
        self,
        token_ids: Int[Tensor, " tokens"],
        position_ids: Int[Tensor, " tokens"],
        lengths: tuple[int, ...],
        predictors: Int[Tensor, " completion_tokens"],
        shared: "Shared | None" = None,
    ) -> Float[Tensor, "completion_tokens hidden"]:
        """Last hidden states in the rows of `predictors`."""
        states: Tensor = self.model.base_model(
            input_ids=token_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            **packed_arguments(lengths, token_ids.device, shared),
        ).last_hidden_state[0]
        return states[predictors]


class ChunkedLogprobs(nn.Module):
    """The output head fused with log-softmax and, where asked for, its entropy, over chunks of tokens.

    Called once per forward pass: ZeRO-3 gathers weights at each call, and ranks differ in their number of chunks.
    """

    def __init__(self, weight: nn.Parameter, chunk_tokens: int, head_dtype: HeadDtype) -> None:
        super().__init__()
        self.weight = weight
        self.chunk_tokens = chunk_tokens
        self.logits_dtype = torch.float32 if head_dtype == "float32" else weight.dtype

    def forward(
        self,
        hidden: Float[Tensor, "tokens hidden"],
        targets: Int[Tensor, " tokens"],
        temperature: float,
        entropies: bool = False,
        teacher: TeacherView | None = None,
        top_k: int = 0,
    ) -> LogprobsAndMore:
        last = temperature, self.chunk_tokens, self.logits_dtype
        found: LogprobsAndMore
        if teacher is not None:
            own = hidden, self.weight, targets, teacher, top_k
            found = DistilledLogprobs.apply(*own, *last)  # type: ignore[no-untyped-call]
        else:
            found = _TokenLogprobs.apply(hidden, self.weight, targets, *last, entropies)  # type: ignore[no-untyped-call]
        return found


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(hidden @ weight.T / temperature)[target], and the entropy of that softmax where asked for.

    The backward pass computes each chunk's logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        chunk_tokens: int,
        logits_dtype: torch.dtype,
        with_entropies: bool,
    ) -> LogprobsAndMore:
        pick = _compiled(_pick) if hidden.is_cuda else _pick_over
        picked = [
            pick(logits_of(rows, weight, logits_dtype), wanted, temperature, with_entropies)
            for rows, wanted in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        ]
        logit, normaliser, *entropies = (torch.cat(parts) for parts in zip(*picked, strict=True))
        ctx.save_for_backward(hidden, weight, targets, normaliser, *entropies)
        ctx.temperature, ctx.chunk_tokens, ctx.logits_dtype = temperature, chunk_tokens, logits_dtype
        return (logit - normaliser, entropies[0]) if entropies else logit - normaliser

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *by_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser, *entropies = ctx.saved_tensors
        slope_of = _compiled(_slope) if hidden.is_cuda else _slope_over

        def slope(rows: slice, logits: Tensor) -> Tensor:
            more = [values[rows] for values in (*by_entropy, *entropies)]
            given = logits, targets[rows], normaliser[rows], gradient[rows], ctx.temperature, weight.dtype
            made: Tensor = slope_of(*given, *more)
            return made

        made = head_gradients(hidden, weight, slope, ctx.chunk_tokens, ctx.logits_dtype, ctx.needs_input_grad[1])
        return (*made, *[None] * 5)


def _pick(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"], temperature: float, entropies: bool
) -> tuple[Tensor, ...]:
    """Each row's logit of its target, its log-sum-exp and, where asked for, its entropy, in float32."""
    scaled = logits.float() / temperature
    picked = scaled.gather(-1, targets[:, None])[:, 0], scaled.logsumexp(dim=-1)
    if not entropies:
        return picked
    logprobs = scaled - picked[1][:, None]
    return *picked, -(logprobs.exp() * logprobs).sum(-1)


def _slope(
    logits: Float[Tensor, "tokens vocabulary"],
    targets: Tensor,
    normaliser: Tensor,
    gradient: Tensor,
    temperature: float,
    dtype: torch.dtype,
    by_entropy: Tensor | None = None,
    entropy: Tensor | None = None,
) -> Float[Tensor, "tokens vocabulary"]:
    """(gradient x (onehot - p) - by_entropy x p (log p + entropy)) / temperature, in float32 and then given in `dtype`.

    `gradient` and `by_entropy`: of the result by each log-probability and each entropy.
    """
    logprobs = logits.float() / temperature - normaliser[:, None]
    onehot = torch.arange(logits.shape[-1], device=logits.device) == targets[:, None]
    slope = (onehot.float() - logprobs.exp()) * (gradient / temperature)[:, None]
    if by_entropy is not None and entropy is not None:
        slope = slope - logprobs.exp() * (logprobs + entropy[:, None]) * (by_entropy / temperature)[:, None]
    return slope.to(dtype)


# On a CPU, new memory for each operation costs as much as its arithmetic: these work in the memory of the logits.


def _pick_over(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"], temperature: float, entropies: bool
) -> tuple[Tensor, ...]:
    """`_pick`, which overwrites float32 logits."""
    scaled = logits.float().div_(temperature)
    picked = scaled.gather(-1, targets[:, None])[:, 0], scaled.logsumexp(dim=-1)
    if not entropies:
        return picked
    logprobs = scaled.sub_(picked[1][:, None])
    return *picked, -logprobs.exp().mul_(logprobs).sum(-1)


def _slope_over(
    logits: Float[Tensor, "tokens vocabulary"],
    targets: Tensor,
    normaliser: Tensor,
    gradient: Tensor,
    temperature: float,
    dtype: torch.dtype,
    by_entropy: Tensor | None = None,
    entropy: Tensor | None = None,
) -> Float[Tensor, "tokens vocabulary"]:
    """`_slope`, which overwrites float32 logits; with an entropy it makes one more table."""
    scale = (gradient / temperature)[:, None]
    logprobs = logits.float().div_(temperature).sub_(normaliser[:, None])
    if by_entropy is None or entropy is None:
        slope = logprobs.exp_().mul_(-scale)
    else:
        softmax = logprobs.exp()
        slope = logprobs.add_(entropy[:, None]).mul_(-(by_entropy / temperature)[:, None]).sub_(scale).mul_(softmax)
        del softmax
    return slope.scatter_add_(-1, targets[:, None], scale).to(dtype)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Two passes over the logits instead of a dozen."""
    return torch.compile(function, dynamic=True)


def micro_batch_arguments(batch: MicroBatch, device: torch.device) -> dict[str, Any]:
    """Arguments of `Policy.forward`."""
    places = np.arange(len(batch.token_ids)) if batch.rows is None else batch.rows
    firsts = np.unique(places, return_index=True)[1]
    completion = np.flatnonzero(batch.completion_mask)

    def sent(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).long().to(device)

    return {
        "token_ids": sent(batch.token_ids[firsts]),
        "position_ids": sent(batch.position_ids[firsts]),
        "lengths": tuple(int(length) for length in batch.lengths),
        "predictors": sent(places[completion - 1]),
        "targets": sent(batch.token_ids[completion]),
        "shared": None if batch.rows is None else (sent(batch.rows), sent(firsts)),
    }


def packed_arguments(lengths: tuple[int, ...], device: torch.device, shared: Shared | None = None) -> dict[str, Any]:
    """The model hands them through to `packed_attention`."""
    cumulative = torch.tensor((0, *lengths), device=device).cumsum(0, dtype=torch.int32)
    return {"packed_lengths": lengths, "packed_cumulative": cumulative, "packed_shared": shared}


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    attention_mask: Tensor | None,
    *,
    packed_lengths: tuple[int, ...],
    packed_cumulative: Int[Tensor, " sequences_plus_1"],
    packed_shared: Shared | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 rows heads head_dim"], None]:
    """Causal attention within each sequence, as transformers' `AttentionInterface`.

    Only here are shared rows copied to every sequence that has them, which attends to its own copy. The results of all copies
    are equal, and the first is kept.
    """
    if packed_shared is None:
        return _attention(query, key, value, packed_lengths, packed_cumulative, scaling), None
    rows, firsts = packed_shared
    q, k, v = (_taken(tensor[0].transpose(0, 1), rows).transpose(0, 1)[None] for tensor in (query, key, value))
    return _taken(_attention(q, k, v, packed_lengths, packed_cumulative, scaling)[0], firsts)[None], None


def _taken(values: Float[Tensor, "from heads head_dim"], at: Int[Tensor, " to"]) -> Float[Tensor, "to heads head_dim"]:
    # An embedding lookup, because its gradient is summed in one loop and, on a GPU, in a fixed order.
    taken: Tensor = F.embedding(at, values.flatten(1)).unflatten(1, values.shape[1:])
    return taken


def _attention(
    query: Float[Tensor, "1 heads tokens head_dim"],
    key: Float[Tensor, "1 kv_heads tokens head_dim"],
    value: Float[Tensor, "1 kv_heads tokens head_dim"],
    lengths: tuple[int, ...],
    cumulative: Int[Tensor, " sequences_plus_1"],
    scaling: float | None,
) -> Float[Tensor, "1 tokens heads head_dim"]:
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return causal_attention(q, k, v, cumulative, max(lengths), scaling)[None]
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)


AttentionInterface.register(ATTENTION, packed_attention)


def load_policy(path: str, dtype: str, chunk_tokens: int, head_dtype: HeadDtype = "float32") -> Policy:
    """A model on the CPU, ready to train. UserError if it is not supported."""
    model = read_model(path, getattr(torch, dtype), ATTENTION)
    check_attention(model.config, path)
    with reading(f"the learner cannot compute model {path}"):
        policy = Policy(model, chunk_tokens, head_dtype)
        _check_same_logits(policy, path)
    return policy.train()


def fuse_kernels(policy: Policy) -> None:
    """Swap in Liger's kernels for norms, rotary embedding and SwiGLU, in this model and its copies; GPUs only from then on.

    Liger changes the family's module, too: that is put back.
    """
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    shared = vars(sys.modules[type(policy.model).__module__])
    plain = dict(shared)
    _apply_liger_kernel_to_instance(policy.model, cross_entropy=False, fused_linear_cross_entropy=False)
    fused = dict(shared)
    shared.update(plain)
    functions = {name for name in plain if fused[name] is not plain[name] and isfunction(plain[name])}
    # The attention looks the rotary embedding up in its module, which is plain again.
    for module in policy.model.modules():
        forward = type(module).forward
        if isfunction(forward) and forward.__globals__ is shared and functions & {*forward.__code__.co_names}:
            module.forward = MethodType(_with_globals(forward, fused), module)


def _with_globals(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def adapt(policy: Policy, lora: Lora, seed: int) -> "LoraConfig":
    """Give the policy adapters, which are trained and saved instead of its weights; `seed` determines their start."""
    config = attach(policy.model, lora, seed)
    # DeepSpeed leaves frozen weights out of a checkpoint by name, but the head's weight has two names.
    policy.head.register_state_dict_post_hook(_without_weight)  # type: ignore[no-untyped-call]
    return config


def _without_weight(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    state.pop(f"{prefix}weight")


@torch.no_grad()
def _check_same_logits(policy: Policy, path: str) -> None:
    """UserError where more than the head makes the logits: a scale, a cap, a bias."""
    policy.eval()
    ids = torch.arange(8) % policy.model.config.get_text_config().vocab_size
    arguments = {
        "input_ids": ids[None],
        "position_ids": torch.arange(len(ids))[None],
        "use_cache": False,
        **packed_arguments((len(ids),), ids.device),
    }
    logits = policy.model(**arguments).logits[0].float()
    hidden = policy.model.base_model(**arguments).last_hidden_state[0]
    expected = F.linear(hidden, policy.head.weight).float()
    if not (logits - expected).abs().max() <= 0.01 * expected.abs().max():
        raise UserError(f"Model {path} computes its logits in a way that is not supported; use a Qwen2 or Llama model.")
