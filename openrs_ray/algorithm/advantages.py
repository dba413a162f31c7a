"""Advantages relative to the group, and the sequences to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from openrs_ray.records import Group


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSequence:
    prompt_ids: Int32[np.ndarray, " prompt"]
    """Not empty: the last prompt token predicts the first completion token."""
    completion_ids: Int32[np.ndarray, " completion"]
    sampler_logprobs: Float32[np.ndarray, " completion"]
    """Under the distribution that the tokens were drawn from."""
    advantage: float
    sampled: Bool[np.ndarray, " completion"] | None = None
    """Tokens that carry loss; None: all."""

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0 or not self.sampled_tokens:
            raise ValueError("a training sequence needs at least one prompt token and one sampled token")
        if len(self.sampler_logprobs) != len(self.completion_ids):
            raise ValueError(f"{len(self.sampler_logprobs)} log-probabilities for {len(self.completion_ids)} tokens")
        if len(self.mask) != len(self.completion_ids):
            raise ValueError(f"{len(self.mask)} marks for {len(self.completion_ids)} tokens")
        if not np.isfinite(self.advantage):
            raise ValueError("a completion without an advantage must be left out of the loss")

    @property
    def mask(self) -> Bool[np.ndarray, " completion"]:
        return np.ones(len(self.completion_ids), dtype=np.bool_) if self.sampled is None else self.sampled

    @property
    def sampled_tokens(self) -> int:
        return int(np.count_nonzero(self.mask))

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def advantages(
    rewards: Float64[np.ndarray, "groups completions"], epsilon: float, divide_by_std: bool = True
) -> Float64[np.ndarray, "groups completions"]:
    """(r - mean) / (std + epsilon) within each group, std with Bessel's correction (arXiv 2402.03300, section 4.1.2).

    NaN for rollouts without judgement and groups with fewer than two judged ones. Without `divide_by_std`: r - mean (Dr. GRPO,
    arXiv 2503.20783, figure 1).
    """
    judged = ~np.isnan(rewards)
    count = judged.sum(axis=1, keepdims=True)
    enough = count >= 2
    mean = np.where(judged, rewards, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    deviation = np.where(judged & spread(rewards)[:, None], rewards - mean, 0.0)
    if divide_by_std:
        scale = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1)) + epsilon
        deviation = deviation / np.where(scale > 0, scale, 1.0)
    return np.where(judged & enough, deviation, np.nan)


def taught(
    values: Float64[np.ndarray, "groups completions"], groups: Sequence[Group]
) -> Float64[np.ndarray, "groups completions"]:
    """Advantages where a teacher also acts on rollouts without one, which get 0; NaN for those without a usable token."""
    usable = [
        [rollout.sampled_tokens > 0 and bool(np.isfinite(rollout.logprobs).all()) for rollout in group.rollouts]
        for group in groups
    ]
    return np.where(np.isnan(values) & np.array(usable), 0.0, values)


def spread(rewards: Float64[np.ndarray, "groups completions"]) -> Bool[np.ndarray, " groups"]:
    """True where a group's judged rewards differ."""
    lowest = np.where(np.isnan(rewards), np.inf, rewards).min(axis=1)
    highest = np.where(np.isnan(rewards), -np.inf, rewards).max(axis=1)
    return np.asarray(highest > lowest)  # the mean of equal rewards may be off by rounding
