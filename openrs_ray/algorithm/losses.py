"""The losses as pure functions; docs/losses.md explains them.

`r` is a token's ratio: its probability under the policy being trained by that under the policy that sampled it. All results
are sums, which add up over micro-batches and ranks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from openrs_ray.config.loss import Loss

METRICS = (
    *("clipped", "kl", "mismatch_kl", "entropy", "ratio", "ratio_squared", "truncated", "masked_tokens", "tokens"),
    *("masked_sequences", "sequences", "teacher_kl", "top_share"),
)
"""Sums of `LossOutput`: over tokens, but for those of sequences."""

MOST_LOG_RATIO = 20.0
"""As in verl: exp(89) overflows float32, and every clip acts far below."""


@dataclass(frozen=True, slots=True, eq=False)
class LossInput:
    """Sampled tokens of a micro-batch, flat."""

    logprobs: Float[Tensor, " tokens"]
    """With gradient."""
    behaviour_logprobs: Float[Tensor, " tokens"]
    """Under the policy that sampled them."""
    advantages: Float[Tensor, " tokens"]
    lengths: tuple[int, ...]
    """Sampled tokens of each sequence, in order."""
    reference_logprobs: Float[Tensor, " tokens"] | None = None
    """Under the frozen start model; None when `kl_beta` is 0."""
    teacher_logprobs: Float[Tensor, " tokens"] | None = None
    """Under the teacher; None without one, or with `divergence`."""
    divergence: Float[Tensor, " tokens"] | None = None
    """From the policy to the teacher, with gradient."""
    top_share: Float[Tensor, " tokens"] | None = None
    """Probability of the tokens whose teacher's probability enters the divergence by itself."""
    entropies: Float[Tensor, " tokens"] | None = None
    """Of the distribution that each token is one of, in nats, with gradient; None when `entropy_weight` is 0."""

    def to_tokens(self, values: Tensor) -> Tensor:
        """One value per sequence -> one per token."""
        return values.repeat_interleave(torch.tensor(self.lengths, device=values.device), output_size=sum(self.lengths))

    def unusable(self) -> Bool[Tensor, " sequences"]:
        broken = ~torch.isfinite(self.behaviour_logprobs)
        return torch.stack([part.any() for part in broken.split(self.lengths)])

    def sequence_means(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " sequences"]:
        return torch.stack([part.mean() for part in values.split(self.lengths)])


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    total: Float[Tensor, ""]
    """Sum of per-token losses; with normalization `sequences` each is divided by its sequence's length."""
    sums: dict[str, Float64[Tensor, ""]]
    """One of each of `METRICS`, without gradient."""


class Objective(NamedTuple):
    per_token: Float[Tensor, " tokens"]
    """To be maximised."""
    clipped: Bool[Tensor, " tokens"]
    """Where the clip changes the gradient."""
    truncated: Bool[Tensor, " tokens"]
    """Where the ratio is above a cap."""


def token_ratio(batch: LossInput, log_ratio: Float[Tensor, " tokens"], loss: Loss) -> Objective:
    """min(r A, clip(r, 1 - eps_low, 1 + eps_high) A), r of each token.

    GRPO (arXiv 2402.03300, eq. 3), DAPO (arXiv 2503.14476, sections 3.1, 3.3), Dr. GRPO (arXiv 2503.20783, figure 1).
    """
    return _clip(log_ratio.exp(), batch.advantages, loss)


def sequence_ratio(batch: LossInput, log_ratio: Float[Tensor, " tokens"], loss: Loss) -> Objective:
    """The same with the geometric mean s of a sequence's ratios: GSPO-token (arXiv 2507.18071, section 4.3).

    sg[s] pi_t / sg[pi_t] has the gradient of min(s A, clip(s) A) (eq. 5).
    """
    mean = batch.to_tokens(batch.sequence_means(log_ratio.detach()))
    return _clip((mean + (log_ratio - log_ratio.detach())).exp(), batch.advantages, loss)


def clipped_weight(batch: LossInput, log_ratio: Float[Tensor, " tokens"], loss: Loss) -> Objective:
    """sg[min(r, 1 + eps_high)] A log pi: no token loses its gradient. CISPO (arXiv 2506.13585, section 3.1)."""
    weight = log_ratio.detach().exp()
    high = loss.clip_range[1]
    above = weight > high
    return Objective(weight.clamp(max=high) * batch.advantages * batch.logprobs, above, above)


def soft_gate(batch: LossInput, log_ratio: Float[Tensor, " tokens"], loss: Loss) -> Objective:
    """4 / tau sigmoid(tau (r - 1)) A, tau by the sign of A: SAPO (arXiv 2511.20347, section 3).

    Its gradient is 4 p (1 - p) r A grad log pi with p the sigmoid: that of r A at r = 1, and less the further r is from 1.
    """
    temperature = torch.full_like(batch.advantages, loss.gate_temperature_negative)
    temperature = temperature.masked_fill(batch.advantages > 0, loss.gate_temperature)
    gate = torch.sigmoid(temperature * (log_ratio.exp() - 1)) * (4 / temperature)
    nowhere = torch.zeros_like(batch.advantages, dtype=torch.bool)
    return Objective(gate * batch.advantages, nowhere, nowhere)


OBJECTIVES: dict[str, Callable[[LossInput, Float[Tensor, " tokens"], Loss], Objective]] = {
    "grpo": token_ratio,
    "dr_grpo": token_ratio,
    "dapo": token_ratio,
    "gspo": sequence_ratio,
    "cispo": clipped_weight,
    "tis": clipped_weight,
    "distill": token_ratio,
    "sapo": soft_gate,
}


def policy_loss(batch: LossInput, loss: Loss) -> LossOutput:
    """Sum over tokens of -objective + beta k3 - w entropy, without what `_masked` leaves out (docs/losses.md).

    Sums: `mismatch_kl` is k3 of the sampler to the policy, `entropy` estimated by -logp where it is not given, the ratios are of
    the unbounded r.
    """
    unusable = batch.unusable()
    # Replaced before anything is made of them: the gradient of what is masked afterwards would be 0 x inf.
    log_ratio = _bounded((batch.logprobs - batch.behaviour_logprobs).masked_fill(batch.to_tokens(unusable), 0.0))
    # The ratio to the current policy is 1 with the gradient of log pi, as in TRL with one update per batch.
    learned = log_ratio if loss.old_policy == "sampler" else batch.logprobs - batch.logprobs.detach()
    objective, clipped, truncated = OBJECTIVES[loss.kind](_taught(batch, loss), learned, loss)
    per_token = -objective
    if batch.divergence is not None:
        weight = loss.teacher.weight
        per_token = weight * batch.divergence + (1 - weight) * per_token
    kl = torch.zeros_like(per_token)
    if batch.reference_logprobs is not None:
        kl = k3(batch.reference_logprobs - batch.logprobs)
        per_token = per_token + loss.kl_beta * kl
    if batch.entropies is not None:
        per_token = per_token - loss.entropy_weight * batch.entropies
    lengths = torch.tensor(batch.lengths, device=per_token.device)
    masked, masked_tokens = _masked(batch, unusable, log_ratio.detach(), loss)
    per_token = per_token.masked_fill(masked_tokens, 0.0)
    if loss.normalization == "sequences":
        per_token = per_token / batch.to_tokens(lengths)
    ratio = log_ratio.detach().exp().double()
    nowhere = torch.zeros_like(clipped)
    measured = {
        "clipped": clipped if loss.uses_ratios else nowhere,
        "kl": kl,
        "mismatch_kl": k3(log_ratio),
        "entropy": -batch.logprobs if batch.entropies is None else batch.entropies,
        "ratio": ratio,
        "ratio_squared": ratio**2,
        "truncated": truncated if loss.uses_ratios else nowhere,
        "masked_tokens": masked_tokens,
        "tokens": torch.ones_like(ratio),
        "masked_sequences": masked,
        "sequences": lengths > 0,
        "teacher_kl": _teacher_kl(batch),
        "top_share": torch.zeros_like(ratio) if batch.top_share is None else batch.top_share,
    }
    return LossOutput(per_token.sum(), {name: values.detach().double().sum() for name, values in measured.items()})


def _taught(batch: LossInput, loss: Loss) -> LossInput:
    """With the sampled-token estimate of the divergence taken off the advantages, each with its weight."""
    if batch.teacher_logprobs is None:
        return batch
    weight = loss.teacher.weight
    return replace(batch, advantages=(1 - weight) * batch.advantages - weight * _teacher_kl(batch))


def _teacher_kl(batch: LossInput) -> Float[Tensor, " tokens"]:
    """The divergence from the policy to the teacher, or its estimate from the sampled token; 0 without a teacher."""
    if batch.teacher_logprobs is not None:
        return (batch.logprobs - batch.teacher_logprobs).detach()
    return torch.zeros_like(batch.behaviour_logprobs) if batch.divergence is None else batch.divergence.detach()


def _masked(
    batch: LossInput, unusable: Bool[Tensor, " sequences"], log_ratio: Float[Tensor, " tokens"], loss: Loss
) -> tuple[Bool[Tensor, " sequences"], Bool[Tensor, " tokens"]]:
    """Sequences, and tokens, theirs and others, whose loss is 0, KL and entropy included; they stay in the denominator.

    - Always: sequences whose sampler has a log-probability that is not finite.
    - `sequence_mask`: those whose mean log r is further from 0 than log(mask_ratio) (arXiv 2512.02556, section 3.1, one-sided
      there).
    - `token_mask`: tokens whose r is outside [token_mask_low, token_mask_high] (IcePop, arXiv 2510.18855).
    """
    sequences = unusable
    if loss.correction == "sequence_mask":
        sequences = sequences | (batch.sequence_means(log_ratio).abs() > math.log(loss.mask_ratio))
    tokens = batch.to_tokens(sequences)
    if loss.correction == "token_mask":
        low, high = math.log(loss.token_mask_low), math.log(loss.token_mask_high)
        tokens = tokens | (log_ratio < low) | (log_ratio > high)
    return sequences, tokens


def _clip(ratio: Float[Tensor, " tokens"], advantages: Float[Tensor, " tokens"], loss: Loss) -> Objective:
    """PPO's pessimistic clip (arXiv 1707.06347, eq. 7), after truncation (arXiv 1802.01561, section 4.1)."""
    truncated = ratio > loss.cap
    ratio = ratio * (loss.cap / ratio.detach()).clamp(max=1.0)
    unclipped = ratio * advantages
    clipped = ratio.clamp(*loss.clip_range) * advantages
    return Objective(torch.minimum(unclipped, clipped), clipped < unclipped, truncated)


def k3(log_ratio: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """Estimates a KL divergence (arXiv 2402.03300, eq. 4), without cancellation near 0."""
    log_ratio = _bounded(log_ratio)
    return torch.expm1(log_ratio) - log_ratio


def _bounded(log_ratio: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """Unlike `clamp` it lets NaN through, in the gradient too."""
    return log_ratio.masked_fill(log_ratio > MOST_LOG_RATIO, MOST_LOG_RATIO)
