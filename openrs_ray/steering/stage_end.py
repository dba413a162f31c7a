"""The end of a stage (`rollout.stages`): the conditions that a step's figures are held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openrs_ray.config.stages import Until


@dataclass(frozen=True, slots=True)
class StageEnd:
    """Why a stage is over. Example: StageEnd("truncated_share_below", 0.1, 0.093, (191, 200))"""

    condition: str
    """Name of a field of `until`."""
    limit: float
    found: float
    """The step, or the mean share."""
    steps: tuple[int, int]
    """First and last step that it was found over."""

    @property
    def sentence(self) -> str:
        if self.condition == "step":
            return f"until.step is {self.limit:.0f}"
        word = "below" if self.condition == "truncated_share_below" else "above"
        first, last = self.steps
        return (
            f"{self.found:.3f} of the completions of steps {first} to {last} were cut, which is {word} until.{self.condition} "
            f"({self.limit:g})"
        )


def stage_end(until: Until | None, step: int, shares: Sequence[float]) -> StageEnd | None:
    """The first condition that holds after `step`, if any.

    Args:
        shares: shares of cut completions of the stage's steps up to this one, oldest first, without steps that trained on
            completions of an earlier stage. A mean over fewer than `until.window` of them, or with an unknown one (NaN), holds
            for no condition.
    """
    if until is None:
        return None
    if until.step is not None and step >= until.step:
        return StageEnd("step", until.step, step, (step, step))
    recent = shares[-until.window :]
    if len(recent) < until.window or not np.isfinite(recent).all():
        return None
    mean, steps = float(np.mean(recent)), (step - until.window + 1, step)
    below, above = until.truncated_share_below, until.truncated_share_above
    if below is not None and mean < below:
        return StageEnd("truncated_share_below", below, mean, steps)
    if above is not None and mean > above:
        return StageEnd("truncated_share_above", above, mean, steps)
    return None
