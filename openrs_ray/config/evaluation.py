"""The section `evaluation`: held-out problems, and how they are asked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import model_validator

from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Count, Positive, Section, Seed, Temperature


class HeldOut(Section):
    """Held-out problems of a task."""

    path: str | None = None
    """Held-out problems (same forms and columns as `data`); without them or `hold_out` there is no evaluation."""
    split: str | None = None
    """Split to read of them when `path` is a Hub id (default: that of `data`)."""
    parameters: dict[str, Any] | None = None
    """Of held-out problems reasoning-gym:NAME or verifiers:NAME (default: those of `data` where it is the same NAME)."""
    hold_out: Count = 0
    """Instead of `path`: keep so many problems of `data` out of training, in every spelling, and evaluate on them."""
    problems: Positive | None = None
    """Use only the first so many held-out problems."""

    @model_validator(mode="after")
    def _one_source(self) -> HeldOut:
        if self.hold_out and self.path is not None:
            raise ValueError(
                "evaluation.hold_out takes the held-out problems from data.path: leave out evaluation.path"
            )
        if self.hold_out and self.problems is not None:
            raise ValueError("evaluation.hold_out says how many problems there are: leave out evaluation.problems")
        return self


NONE_HELD_OUT = HeldOut()


class Evaluation(HeldOut):
    hold_out_seed: Seed = 0
    """Draws those of `hold_out`; apart from run.seed, so that runs of several seeds leave out the same ones."""
    on_training_data: Annotated[bool, FREE] = False
    """Allow `path` to be that of `data`: the accuracy then says what was memorised, too."""
    samples: Positive = 1
    """Completions sampled per held-out problem."""
    every_steps: Annotated[Count, FREE] = 0
    """Evaluate every so many steps besides before and after (0: only those two)."""
    temperature: Temperature = 1.0
    """Sampling temperature of the evaluation (0: greedy)."""
    max_completion_tokens: Annotated[Positive | None, FREE] = None
    """Longest completion of an evaluation (none: rollout.max_completion_tokens); the same in all evaluations of a run."""
