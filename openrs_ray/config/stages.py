"""The list `rollout.stages`: lengths and temperatures that a run samples at, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, model_validator

from openrs_ray.config.section import Count, Positive, Section, Share, SomeShare

Warmth = Annotated[float, Field(ge=0.01, le=100)]
"""A temperature to sample at (below 0.01 vLLM samples at 0.01)."""


class Until(Section):
    """The end of a stage: the first of these conditions that holds after a step."""

    step: Positive | None = None
    """The last step of the stage, counted from the beginning of the run."""
    truncated_share_below: SomeShare | None = None
    """Less than this share of the completions was cut at the stage's limit, on average over `window` steps of the stage."""
    truncated_share_above: Share | None = None
    """More than this share was cut, on average over as many steps."""
    window: Positive = 10
    """Steps of the stage that both shares are averaged over."""

    @property
    def as_text(self) -> str:
        """Example: "until step 200, or less than 0.1 of the completions are cut over 10 steps" """
        parts = [] if self.step is None else [f"step {self.step}"]
        for word, share in (("less", self.truncated_share_below), ("more", self.truncated_share_above)):
            parts += (
                []
                if share is None
                else [f"{word} than {share:.3g} of the completions are cut over {self.window} steps"]
            )
        return f"until {', or '.join(parts)}"

    @model_validator(mode="after")
    def _can_end(self) -> Until:
        if self.step is None and self.truncated_share_below is None and self.truncated_share_above is None:
            raise ValueError("an `until` in rollout.stages needs step, truncated_share_below or truncated_share_above")
        return self


class RolloutStage(Section):
    max_completion_tokens: Positive
    """Longest completion in tokens."""
    max_prompt_tokens: Positive | None = None
    """Longest prompt in tokens; positions of problems with longer ones are passed over (default: rollout.max_prompt_tokens)."""
    min_prompt_tokens: Count = 0
    """Shortest prompt in tokens; positions of problems with shorter ones are passed over."""
    temperature: Warmth | None = None
    """Sampling temperature (default: rollout.temperature)."""
    until: Until | None = None
    """The end of the stage; the last one lasts until the run ends."""

    @property
    def as_text(self) -> str:
        """With nothing left open. Example: "completions of up to 4,096 tokens at temperature 0.7, prompts of 0 to 512" """
        return (
            f"completions of up to {self.max_completion_tokens:,} tokens at temperature {self.temperature:g}, prompts of "
            f"{self.min_prompt_tokens:,} to {self.max_prompt_tokens:,}"
        )


def longest(given: Any, name: str) -> int | None:
    """The largest value of a field over stages as given, unchecked; None unless all of them have it."""
    stages = given if isinstance(given, list | tuple) else ()
    values = [stage.get(name) if isinstance(stage, dict) else getattr(stage, name, None) for stage in stages]
    whole = [value for value in values if isinstance(value, int)]
    return max(whole) if whole and len(whole) == len(values) else None


def check_order(stages: Sequence[RolloutStage]) -> None:
    """ValueError unless every stage but the last can end, and in order."""
    for number, stage in enumerate(stages[:-1]):
        if stage.until is None:
            raise ValueError(
                f"rollout.stages[{number}] needs `until`, for example {{step: 200}}: it would never make way for the next stage"
            )
    if stages and stages[-1].until is not None:
        raise ValueError(
            f"rollout.stages[{len(stages) - 1}].until must be left out: the last stage lasts until the run ends"
        )
    for number, stage in enumerate(stages):
        if stage.max_prompt_tokens is not None and stage.min_prompt_tokens > stage.max_prompt_tokens:
            raise ValueError(
                f"rollout.stages[{number}].min_prompt_tokens ({stage.min_prompt_tokens}) must not be above its max_prompt_tokens "
                f"({stage.max_prompt_tokens})"
            )
    ends = [(number, stage.until.step) for number, stage in enumerate(stages) if stage.until and stage.until.step]
    for (earlier, first), (later, second) in pairwise(ends):
        if second <= first:
            raise ValueError(
                f"rollout.stages[{later}].until.step ({second}) must be above that of rollout.stages[{earlier}] ({first}): steps "
                "are counted from the beginning of the run"
            )
