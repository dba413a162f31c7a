"""The config section `loss`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from openrs_ray.config.section import Amount, Ratio, Section, SomeAmount
from openrs_ray.config.teacher import Teacher

_PUBLISHED: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"normalization": "constant"},
    "dapo": {"clip_epsilon_high": 0.28},
    "gspo": {"normalization": "sequences", "clip_epsilon": 3e-4, "clip_epsilon_high": 4e-4},
    "cispo": {"clip_epsilon_high": 1.0},
    "tis": {"clip_epsilon_high": 1.0},
    "distill": {},
}
"""Defaults of each loss that differ from the fields'; from its paper, except the bound of CISPO and TIS."""


class Loss(Section):
    kind: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "tis", "distill"] = "grpo"
    """Which loss (docs/losses.md); it brings its own clip and normalization where those are not given."""
    teacher: Teacher = Teacher()
    """With kind distill: the model to learn from."""
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The probability ratio is clipped below 1 - epsilon (gspo: 0.0003; cispo and tis have no lower bound)."""
    clip_epsilon_high: SomeAmount | None = None
    """The ratio is clipped above 1 + this (none: clip_epsilon; dapo: 0.28, gspo: 0.0004, cispo and tis: 1.0)."""
    correction: Literal["none", "truncated", "sequence_mask"] = "none"
    """Against stale tokens, besides the clip: a cap on the ratio inside PPO's clip (the usual TIS is loss.kind tis), or leaving
    out sequences that are too far off."""
    correction_cap: Ratio = 2.0
    """Largest ratio that may multiply an advantage, with correction truncated."""
    mask_ratio: Ratio = 1.05
    """With correction sequence_mask, a sequence's geometric mean ratio must lie in [1 / this, this]."""
    kl_beta: Amount = 0.0
    """Weight of the k3 KL penalty to the frozen start model (0: no reference model is loaded); its gradient carries no ratio, so
    stale tokens pull as the policy that sampled them would (docs/losses.md)."""
    advantage_epsilon: Amount = 1e-4
    """Added to the group's standard deviation when advantages are normalised (dr_grpo does not)."""
    normalization: Literal["tokens", "sequences", "constant", "local_micro_batch"] = "tokens"
    """Mean over all tokens of the step, over completions of their token means (gspo), sum by a constant (dr_grpo), or the
    published mean over each micro-batch (depends on how the step is split)."""
    old_policy: Literal["sampler", "current"] = "sampler"
    """Denominator of the probability ratio: the policy that sampled, or, as published, the one being trained itself: the ratio is
    then always 1, and the clip cannot act."""
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
        if self.correction == "truncated" and self.kind in ("cispo", "tis"):
            raise ValueError(f"loss.kind {self.kind} truncates the weights itself, at 1 + loss.clip_epsilon_high")
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
        if self.kind == "distill" and not self.uses_ratios and self.correction == "truncated":
            raise ValueError(
                "loss.correction truncated caps a ratio, of which distillation by loss.teacher.top_k alone has none: set "
                "loss.correction sequence_mask, or loss.teacher.top_k 0"
            )

    @property
    def uses_ratios(self) -> bool:
        """False where the loss is the divergence from a teacher over top_k tokens, and nothing else."""
        return self.kind != "distill" or self.teacher.top_k == 0 or self.teacher.weight < 1

    @property
    def needs_rewards(self) -> bool:
        """False where a teacher alone says how to change."""
        return self.kind != "distill" or self.teacher.weight < 1

    @property
    def acts_everywhere(self) -> bool:
        """True where tokens without an advantage have a gradient, too."""
        return self.kl_beta > 0 or self.kind == "distill"

    @property
    def clip_range(self) -> tuple[float, float]:
        """Bounds of the ratio."""
        high = self.clip_epsilon if self.clip_epsilon_high is None else self.clip_epsilon_high
        return 1.0 - self.clip_epsilon, 1.0 + high

    @property
    def corrects(self) -> bool:
        """True where tokens of another policy than the one being trained are weighted, or sequences of them left out."""
        return self.correction != "none" or self.kind in ("cispo", "tis")

    @property
    def cap(self) -> float:
        """Largest ratio; infinite without truncation."""
        return self.correction_cap if self.correction == "truncated" else math.inf
