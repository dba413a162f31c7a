"""The config section `loss`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from openrs_ray.config.section import Amount, Count, Ratio, Section, SomeAmount
from openrs_ray.config.teacher import Teacher

_PUBLISHED: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"normalization": "constant", "advantage": "group_mean"},
    "dapo": {"clip_epsilon_high": 0.28},
    "gspo": {"normalization": "sequences", "clip_epsilon": 3e-4, "clip_epsilon_high": 4e-4},
    "cispo": {"clip_epsilon_high": 1.0},
    "tis": {"clip_epsilon_high": 1.0},
    "sapo": {"normalization": "sequences"},
    "distill": {},
}
"""Defaults of each loss that differ from the fields'; from its paper, except the bound of CISPO and TIS."""

Advantage = Literal["group_std", "group_mean", "leave_one_out", "batch_std"]

_BOUNDED = ("cispo", "tis", "sapo")
"""Losses that bound the weight of a token by themselves, whatever the sign of its advantage."""


class Loss(Section):
    kind: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "tis", "sapo", "distill"] = "grpo"
    """Which loss (docs/losses.md); it brings its own clip and normalization where those are not given."""
    teacher: Teacher = Teacher()
    """With kind distill: the model to learn from."""
    advantage: Advantage = "group_std"
    """A completion's advantage: reward minus the group's mean, divided by the group's standard deviation (group_std), by nothing
    (group_mean; dr_grpo) or by that of the whole step (batch_std; REINFORCE++), or reward minus the mean of the group's others
    (leave_one_out; RLOO)."""
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The probability ratio is clipped below 1 - epsilon (gspo: 0.0003; cispo and tis have no lower bound)."""
    clip_epsilon_high: SomeAmount | None = None
    """The ratio is clipped above 1 + this (none: clip_epsilon; dapo: 0.28, gspo: 0.0004, cispo and tis: 1.0)."""
    gate_temperature: SomeAmount = 1.0
    """Of sapo's gate where the advantage is above 0: the higher, the faster a token loses weight as its ratio leaves 1."""
    gate_temperature_negative: SomeAmount = 1.05
    """The same where the advantage is below 0."""
    correction: Literal["none", "truncated", "sequence_mask", "token_mask"] = "none"
    """Against stale tokens, besides the clip: a cap on the ratio inside PPO's clip (the usual TIS is loss.kind tis), or leaving
    out sequences or tokens (IcePop) that are too far off."""
    correction_cap: Ratio = 2.0
    """Largest ratio that may multiply an advantage, with correction truncated."""
    mask_ratio: Ratio = 1.05
    """With correction sequence_mask, a sequence's geometric mean ratio must lie in [1 / this, this]."""
    token_mask_low: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """With correction token_mask, tokens whose ratio is below this have no loss."""
    token_mask_high: Ratio = 5.0
    """With correction token_mask, tokens whose ratio is above this have no loss."""
    truncated_completions: Literal["keep", "leave_out"] = "keep"
    """Completions cut at the length limit: keep them in the loss, or leave them out of it and of its denominator (their rewards
    still count in the group's mean)."""
    entropy_weight: Amount = 0.0
    """Weight of the policy's entropy, in nats per token, which is added to what is maximised (0: the entropy is not computed);
    above 0 groups of equal rewards are computed, too."""
    entropy_floor: Amount = 0.0
    """Adapt the entropy's weight, which begins at entropy_weight, to keep the policy's entropy near this floor, in nats per token
    (Skywork-OR1; 0: the weight stays as it is)."""
    entropy_weight_step: SomeAmount = 0.005
    """With a floor: change of the weight's coefficient after each step, up where the entropy is below the floor, else down."""
    max_entropy_weight: SomeAmount = 0.05
    """With a floor: largest weight."""
    kl_beta: Amount = 0.0
    """Weight of the k3 KL penalty to the frozen start model (0: no reference model is loaded); its gradient carries no ratio, so
    stale tokens pull as the policy that sampled them would (docs/losses.md)."""
    reference_reset_after: Count = 0
    """When so many evaluations in a row have not raised the held-out accuracy, the reference becomes the policy of that step, and
    the optimizer begins anew (0: the reference stays the start model)."""
    advantage_epsilon: Amount = 1e-4
    """Added to the standard deviation that advantages are divided by (loss.advantage)."""
    normalization: Literal["tokens", "sequences", "constant", "local_micro_batch"] = "tokens"
    """Mean over all tokens of the step, over completions of their token means (gspo, sapo), sum by a constant (dr_grpo), or the
    published mean over each micro-batch (depends on how the step is split)."""
    old_policy: Literal["sampler", "current"] = "sampler"
    """Denominator of the probability ratio: the policy that sampled, or, as published, the one being trained itself: the ratio is
    then always 1, and the clip cannot act; tokens of an older policy then need a mask (loss.correction)."""
    tempered: bool = True
    """Take all log-probabilities at the sampling temperature; false, as published: at temperature 1, whatever was sampled at."""

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        return {**_PUBLISHED.get(str(given.get("kind")), {}), **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _makes_sense(self) -> Loss:
        own = _PUBLISHED[self.kind].get("normalization", "tokens")
        if self.normalization != own and (self.kind != "grpo" or self.normalization == "constant"):
            raise ValueError(f"loss.kind {self.kind} goes with loss.normalization {own}, not {self.normalization}")
        if self.kind == "dr_grpo" and self.advantage != "group_mean":
            raise ValueError(f"loss.kind dr_grpo goes with loss.advantage group_mean, not {self.advantage}")
        if self.correction == "truncated" and self.bounds_weights:
            how = "by its gate" if self.kind == "sapo" else "at 1 + loss.clip_epsilon_high"
            raise ValueError(f"loss.kind {self.kind} truncates the weights itself, {how}")
        if self.entropy_floor and self.entropy_weight > self.max_entropy_weight:
            raise ValueError(
                f"loss.entropy_weight ({self.entropy_weight:g}) must not be above loss.max_entropy_weight "
                f"({self.max_entropy_weight:g}), which a weight that follows loss.entropy_floor stays below"
            )
        self._check_teacher()
        if self.cap < self.clip_range[1]:
            raise ValueError(
                f"loss.correction_cap ({self.correction_cap:g}) must not be below the clip's upper bound "
                f"({self.clip_range[1]:g}), which could not act"
            )
        return self

    def _check_teacher(self) -> None:
        if (self.kind == "distill") != (self.teacher.path is not None):
            raise ValueError(
                "loss.kind distill and loss.teacher.path go together: give both (docs/distillation.md), or neither of them"
            )
        if self.kind == "distill" and self.teacher.top_k and self.uses_entropy:
            raise ValueError(
                "loss.entropy_weight and loss.entropy_floor are not offered with loss.teacher.top_k above 0: set these to 0, or "
                "loss.teacher.top_k to 0"
            )
        if self.kind == "distill" and not self.uses_ratios and self.correction == "truncated":
            raise ValueError(
                "loss.correction truncated caps a ratio, of which distillation by loss.teacher.top_k alone has none: set "
                "loss.correction sequence_mask, or loss.teacher.top_k 0"
            )

    @property
    def bounds_weights(self) -> bool:
        """True where the loss itself bounds the weight of a token."""
        return self.kind in _BOUNDED

    @property
    def uses_ratios(self) -> bool:
        """False where the loss is the divergence from a teacher over top_k tokens, and nothing else."""
        return self.kind != "distill" or self.teacher.top_k == 0 or self.teacher.weight < 1

    @property
    def ignores_age(self) -> bool:
        """True where stale tokens are learned from as if the policy being trained had sampled them, however far off they are."""
        return self.uses_ratios and self.old_policy == "current" and self.correction == "none"

    @property
    def acts_everywhere(self) -> bool:
        """True where tokens without an advantage have a gradient, too."""
        return self.kl_beta > 0 or self.entropy_weight > 0 or self.kind == "distill"

    @property
    def clip_range(self) -> tuple[float, float]:
        """Bounds of the ratio."""
        high = self.clip_epsilon if self.clip_epsilon_high is None else self.clip_epsilon_high
        return 1.0 - self.clip_epsilon, 1.0 + high

    @property
    def uses_entropy(self) -> bool:
        """True where the policy's entropy may have a weight."""
        return self.entropy_weight > 0 or self.entropy_floor > 0

    @property
    def corrects(self) -> bool:
        """True where tokens of another policy than the one being trained are weighted or left out."""
        return self.correction != "none" or self.bounds_weights

    @property
    def cap(self) -> float:
        """Largest ratio; infinite without truncation."""
        return self.correction_cap if self.correction == "truncated" else math.inf
