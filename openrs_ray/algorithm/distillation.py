"""On-policy distillation: the reverse KL divergence from the policy to a frozen teacher, on the policy's own completions.

For the next token after a prefix, with p of the policy and q of the teacher at the same temperature, it is sum p (log p - log q).
Two ways to take it (docs/distillation.md):

- `top_k` of k: over the policy's k likeliest tokens and all others as one. That is a divergence itself, never above the whole one
  (data processing) and equal to it where k is one less than the vocabulary; without the others a policy may improve it by moving
  probability there (arXiv 2608.14728, for the teacher's top k).
- `top_k` of 0: log p - log q of the sampled token, taken off its advantage. Its gradient with the ratio to the sampler is an
  unbiased estimate of the whole divergence's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openrs_ray.algorithm.head import head_gradients, logits_of


@dataclass(frozen=True, slots=True, eq=False)
class TeacherView:
    """The teacher's hidden states at a micro-batch's sampled tokens, and its output head."""

    hidden: Float[Tensor, "tokens hidden"]
    """Last hidden state of the token before each."""
    head: Float[Tensor, "vocabulary hidden"]
    """Output head, with at least the rows of the policy's."""


class Distilled(NamedTuple):
    """With gradient, but for the last."""

    logprobs: Float[Tensor, " tokens"]
    divergence: Float[Tensor, " tokens"]
    """From the policy to the teacher, in nats."""
    top_share: Float[Tensor, " tokens"]
    """Probability of the tokens that are compared one by one."""


MakesLogits = Callable[[], Float[Tensor, "tokens vocabulary"]]


class Compared(NamedTuple):
    """A chunk's comparison of two models; `top` counts from 0 to k - 1, and the last column stands for all other tokens."""

    chosen: Float[Tensor, " tokens"]
    """Log-probability of the target."""
    normaliser: Float[Tensor, " tokens"]
    top_ids: Int[Tensor, "tokens top"]
    log_ratio: Float[Tensor, "tokens top_and_others"]
    probability: Float[Tensor, "tokens top_and_others"]

    @property
    def divergence(self) -> Float[Tensor, " tokens"]:
        return (self.probability * self.log_ratio).sum(-1)


def compare(policy: MakesLogits, teacher: MakesLogits, targets: Int[Tensor, " tokens"], top_k: int) -> Compared:
    """Compare two models by logits at the same temperature, which are made one after the other and overwritten."""
    logits = policy()
    normaliser = logits.logsumexp(-1)
    chosen = logits.gather(-1, targets[:, None])[:, 0] - normaliser
    ids = logits.topk(min(top_k, logits.shape[-1] - 1), dim=-1).indices
    own = _coarse(logits, ids, normaliser)
    del logits
    logits = teacher()
    return Compared(chosen, normaliser, ids, own - _coarse(logits, ids, logits.logsumexp(-1)), own.exp())


def _coarse(logits: Tensor, ids: Tensor, normaliser: Tensor) -> Float[Tensor, "tokens top_and_others"]:
    """Log-probabilities of the tokens `ids` and of all others together, without the cancellation of 1 - sum. Overwrites."""
    top = logits.gather(-1, ids)
    others = logits.scatter_(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([top, others], dim=-1) - normaliser[:, None]


class DistilledLogprobs(torch.autograd.Function):
    """Chunked log-probabilities and divergences; the backward pass computes each chunk's logits of the policy again.

    With the excess e = log p / q - divergence of a token's column, the divergence has the gradient p e by the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        teacher: TeacherView,
        top_k: int,
        temperature: float,
        chunk_tokens: int,
        logits_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = teacher.head[: len(weight)]

        def chunk(rows: slice) -> Compared:
            def made(states: Tensor, by: Tensor) -> Tensor:
                return logits_of(states[rows], by, logits_dtype).float().div_(temperature)

            return compare(lambda: made(hidden, weight), lambda: made(teacher.hidden, head), targets[rows], top_k)

        starts = range(0, max(len(targets), 1), chunk_tokens)
        chunks = [chunk(slice(start, start + chunk_tokens)) for start in starts]
        whole = Compared(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))
        excess = whole.log_ratio - whole.divergence[:, None]
        ctx.save_for_backward(hidden, weight, targets, whole.normaliser, whole.top_ids, excess)
        ctx.temperature, ctx.chunk_tokens, ctx.logits_dtype = temperature, chunk_tokens, logits_dtype
        top_share = whole.probability[:, :-1].sum(-1)
        ctx.mark_non_differentiable(top_share)
        return whole.chosen, whole.divergence, top_share

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser, top_ids, excess = ctx.saved_tensors
        of_logprob, of_divergence, _ = gradients

        def slope(rows: slice, logits: Tensor) -> Tensor:
            softmax = logits.float().div_(ctx.temperature).sub_(normaliser[rows, None]).exp_()
            weighed = of_divergence[rows, None] * excess[rows]
            top = softmax.gather(-1, top_ids[rows]) * (weighed[:, :-1] - weighed[:, -1:])
            whole = softmax.mul_(weighed[:, -1:] - of_logprob[rows, None])
            whole.scatter_add_(-1, top_ids[rows], top)
            whole.scatter_add_(-1, targets[rows, None], of_logprob[rows, None])
            return whole.div_(ctx.temperature).to(weight.dtype)

        made = head_gradients(hidden, weight, slope, ctx.chunk_tokens, ctx.logits_dtype, ctx.needs_input_grad[1])
        return (*made, *[None] * 6)
