"""Advantages relative to the group, and the sequences to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from openrs_ray.config.loss import Advantage
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
    temperature: float | None = None
    """Divisor of the logits in its log-probabilities; None: that of the run."""

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
    rewards: Float64[np.ndarray, "groups completions"], epsilon: float, kind: Advantage = "group_std"
) -> Float64[np.ndarray, "groups completions"]:
    """r - mean of the group, divided as `kind` says; a step's groups are the batch.

    - `group_std`: by std + epsilon of the group, with Bessel's correction (arXiv 2402.03300, section 4.1.2).
    - `group_mean`: not at all (Dr. GRPO, arXiv 2503.20783, figure 1).
    - `leave_one_out`: by (n - 1) / n, which gives r - mean of the others (RLOO, arXiv 2402.14740).
    - `batch_std`: by std + epsilon of r - mean over the batch (REINFORCE++ with baseline, arXiv 2501.03262). Over the batch
      r - mean already has the mean 0.

    NaN for rollouts without judgement and groups with fewer than two judged ones; 0 in groups without spread.
    """
    judged = ~np.isnan(rewards)
    count = judged.sum(axis=1, keepdims=True)
    mean = np.where(judged, rewards, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    learned = judged & (count >= 2)
    deviation = np.where(learned & spread(rewards)[:, None], rewards - mean, 0.0)
    divisor = np.asarray(_divisor(deviation, count, epsilon, kind))
    return np.where(learned, deviation / np.where(divisor > 0, divisor, 1.0), np.nan)


def _divisor(
    deviation: Float64[np.ndarray, "groups completions"], count: np.ndarray, epsilon: float, kind: Advantage
) -> np.ndarray | float:
    """`count`: judged rollouts of each group, int [groups, 1]."""
    if kind == "group_std":
        return _std(deviation, count, axis=1) + epsilon
    if kind == "batch_std":
        return _std(deviation, count[count >= 2].sum()) + epsilon
    return (count - 1) / np.maximum(count, 1) if kind == "leave_one_out" else 1.0


def _std(deviation: np.ndarray, count: np.ndarray, axis: int | None = None) -> np.ndarray:
    """With Bessel's correction, of values whose mean has been taken off."""
    return np.asarray(np.sqrt((deviation**2).sum(axis=axis, keepdims=True) / np.maximum(count - 1, 1)))


def without_truncated(
    values: Float64[np.ndarray, "groups completions"], groups: Sequence[Group]
) -> Float64[np.ndarray, "groups completions"]:
    """Advantages with NaN for completions cut at the limit, which leaves them out of the loss and of its denominator.

    They have taken part in their group's mean. Overlong filtering of DAPO (arXiv 2503.14476, section 3.4).
    """
    truncated = [[rollout.truncated for rollout in group.rollouts] for group in groups]
    return np.where(truncated, np.nan, values)


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
