"""The records that rewards read. Light to import: the checking processes load this and little else."""

from dataclasses import dataclass
from typing import Literal

from openrs_ray.samples import Status

Extraction = Literal["boxed", "any"]
"""Where an answer is looked for: the last box only, or anywhere as math-verify does by default."""


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One completion to judge.

    Example: JudgeItem(text="2 + 2 </think> \\boxed{4}", token_count=9, finish_reason="stop", gold=("4",))
    """

    text: str
    """The completion, without the prompt."""
    token_count: int
    """Sampled tokens."""
    finish_reason: str
    """"stop" or "length"."""
    gold: tuple[str, ...]
    """Accepted answers; any one of them makes the completion correct."""


@dataclass(frozen=True, slots=True)
class RewardInput:
    """What a reward may look at: the completion and what became of its accuracy check (always a judged status)."""

    text: str
    token_count: int
    finish_reason: str
    status: Status
    answer: str | None
    """The extracted answer, if any."""
