"""Records that rewards read, and types of their parameters. Light to import, for the checking processes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from openrs_ray.records import Status

Positive = Annotated[int, Gt(0), Le(10**9)]
Value = Annotated[float, Ge(-1_000_000), Le(1_000_000)]
"""A reward, or its weight."""

Extraction = Literal["boxed", "any"]
"""Where an answer is looked for: the last box, or anywhere as math-verify does by default."""
RewardExtraction = Literal[Extraction, "published"]
"""In training also as the Open-RS authors' code did (`openrs_ray.rewards.answers.published`)."""
Unjudged = Literal["skip", "wrong"]
"""Fate of a completion whose check gave no verdict: leaves the loss, or counts as wrong."""
Comparison = Literal["gold_first", "answer_first"]
"""Order of math-verify's arguments."""
UnfinishedReasoning = Literal["no_answer", "read"]
"""Reading of a `<think>` that is never closed: no answer yet, or a box in it is the answer."""


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
    """Input of a reward: a completion and the result of its accuracy check.

    The status is a judged one, or UNPARSEABLE_GOLD where `rewards.unparseable_gold: reward` pays for that.
    """

    text: str
    """The completion, with the `<think>` of the chat template."""
    token_count: int
    finish_reason: str
    status: Status
    answer: str | None
    """The extracted answer, if any."""
