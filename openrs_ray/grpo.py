"""GRPO as pure functions: group-normalised advantages, the clipped loss with its k3 KL penalty, and what is measured.

Invariants: nothing here knows about ranks or devices; every metric is a sum over completion tokens, so that
micro-batches and ranks add up exactly; a completion without judgement never enters (its advantage is NaN).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32
from torch import Tensor

from openrs_ray.config import Loss

METRICS = ("clipped", "kl", "mismatch_kl", "entropy", "ratio", "tokens")
"""Order of the sums in `LossOutput.sums`."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSequence:
    """One judged completion, ready to learn from.

    Example: TrainingSequence(prompt_ids=[1, 9, 4], completion_ids=[5, 2], sampler_logprobs=[-0.1, -1.2], advantage=0.7)
    """

    prompt_ids: Int32[np.ndarray, " prompt"]
    """Must not be empty: the last prompt token predicts the first completion token."""
    completion_ids: Int32[np.ndarray, " completion"]
    sampler_logprobs: Float32[np.ndarray, " completion"]
    """Log-probability of each completion token under the distribution it was drawn from."""
    advantage: float

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0 or len(self.completion_ids) == 0:
            raise ValueError("a training sequence needs at least one prompt token and one completion token")
        if len(self.sampler_logprobs) != len(self.completion_ids):
            raise ValueError(f"{len(self.sampler_logprobs)} log-probabilities for {len(self.completion_ids)} tokens")
        if not np.isfinite(self.advantage):
            raise ValueError("a completion without an advantage must be left out of the loss")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def advantages(
    rewards: Float64[np.ndarray, "groups completions"], epsilon: float
) -> Float64[np.ndarray, "groups completions"]:
    """(r - mean) / (std + epsilon) within each group, std with Bessel's correction (arXiv 2402.03300, section 4.1.2).

    NaN rewards (no judgement) count neither in mean nor std and have advantage NaN, as has every completion of a group
    with fewer than two judged ones. A group of equal rewards has advantage 0.
    """
    judged = ~np.isnan(rewards)
    count = judged.sum(axis=1, keepdims=True)
    enough = count >= 2
    mean = np.where(judged, rewards, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    deviation = np.where(judged & spread(rewards)[:, None], rewards - mean, 0.0)
    std = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    scale = std + epsilon
    normalised = deviation / np.where(scale > 0, scale, 1.0)
    return np.where(judged & enough, normalised, np.nan)


def spread(rewards: Float64[np.ndarray, "groups completions"]) -> Bool[np.ndarray, " groups"]:
    """Whether a group's judged rewards differ; by comparison, because the mean of equal rewards may be off by rounding."""
    lowest = np.where(np.isnan(rewards), np.inf, rewards).min(axis=1)
    highest = np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1)
    return np.asarray(highest > lowest)


@dataclass(frozen=True, slots=True, eq=False)
class LossInput:
    """The completion tokens of one micro-batch, flat."""

    logprobs: Float[Tensor, " tokens"]
    """Under the policy being trained, with gradient."""
    behaviour_logprobs: Float[Tensor, " tokens"]
    """Under the policy that sampled them."""
    advantages: Float[Tensor, " tokens"]
    reference_logprobs: Float[Tensor, " tokens"] | None = None
    """Under the frozen start model; None when `kl_beta` is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    total: Float[Tensor, ""]
    """Sum (not mean) of the per-token losses."""
    sums: Float64[Tensor, " metrics"]
    """Sums over the tokens, in the order of `METRICS`, without gradient."""


def clipped_loss(batch: LossInput, loss: Loss) -> LossOutput:
    """Sum over tokens of -min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) + beta k3, ratio = exp(logp - behaviour logp).

    k3 = exp(ref - logp) - (ref - logp) - 1, the non-negative estimate of KL(policy || reference) (arXiv 2402.03300,
    eq. 4). `clipped` counts the tokens whose gradient the clipping removes. `mismatch_kl` is the same estimate of
    KL(sampler || policy), 0 up to rounding when the weights that sampled are the weights that train. `entropy` is
    estimated by -logp of the sampled tokens.
    """
    log_ratio = batch.logprobs - batch.behaviour_logprobs
    ratio = log_ratio.exp()
    unclipped = ratio * batch.advantages
    clipped = ratio.clamp(1.0 - loss.clip_epsilon, 1.0 + loss.clip_epsilon) * batch.advantages
    per_token = -torch.minimum(unclipped, clipped)
    kl = torch.zeros_like(per_token)
    if batch.reference_logprobs is not None:
        kl = k3(batch.reference_logprobs - batch.logprobs)
        per_token = per_token + loss.kl_beta * kl
    measured = (clipped < unclipped, kl, k3(log_ratio), -batch.logprobs, ratio, torch.ones_like(ratio))
    sums = torch.stack([values.detach().double().sum() for values in measured])
    return LossOutput(per_token.sum(), sums)


def k3(log_ratio: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """exp(x) - x - 1 without the cancellation of nearby numbers."""
    return torch.expm1(log_ratio) - log_ratio
