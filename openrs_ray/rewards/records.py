"""The records that rewards read. Light to import: the checking processes load this and little else."""

from dataclasses import dataclass
from typing import Literal

from openrs_ray.records import Status

Extraction = Literal["boxed", "any"]
"""Where an answer is looked for: the last box only, or anywhere as math-verify does by default."""
RewardExtraction = Literal[Extraction, "published"]
"""The same for training, where it may also be looked for as the Open-RS authors' code did (`openrs_ray.rewards.published`)."""
Unjudged = Literal["skip", "wrong"]
"""What becomes of a completion whose check gave no verdict: it leaves the loss, or counts as wrong."""
Comparison = Literal["gold_first", "answer_first"]
"""Which of the two math-verify is given first."""
UnfinishedReasoning = Literal["no_answer", "read"]
"""What a `<think>` that is never closed means: no answer yet, or a box in it is the answer."""
FormatForm = Literal["tags", "line"]
LengthUnit = Literal["tokens", "characters"]
Language = Literal[
    "ar", "cs", "de", "el", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "uk", "vi",
    "zh",
]  # fmt: skip
"""ISO 639-1 codes that the language reward can tell apart."""


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
    """What a reward may look at: the completion and what became of its accuracy check.

    The status is a judged one, or UNPARSEABLE_GOLD where `rewards.unparseable_gold: reward` pays for that.
    """

    text: str
    """The completion, with the `<think>` that the chat template may have written of it."""
    token_count: int
    finish_reason: str
    status: Status
    answer: str | None
    """The extracted answer, if any."""
