"""Records that rewards read, and types of their parameters. Light to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Le

from openrs_ray.records import Message, Status

Positive = Annotated[int, Gt(0), Le(10**9)]
Value = Annotated[float, Ge(-1_000_000), Le(1_000_000)]
"""A reward, or its weight."""

Extraction = Literal["boxed", "any"]
"""Place of an answer: the last box, or anywhere as in math-verify."""
RewardExtraction = Literal[Extraction, "published"]
"""Adds the rules of the Open-RS authors' code."""
Unjudged = Literal["skip", "wrong"]
"""A completion whose check gave no verdict leaves the loss or counts as wrong."""
Comparison = Literal["gold_first", "answer_first"]
"""Order of math-verify's arguments."""
UnfinishedReasoning = Literal["no_answer", "read"]
"""A `<think>` that is never closed has no answer, or a box in it is read."""


@dataclass(frozen=True, slots=True)
class JudgeItem(Message):
    r"""Example: JudgeItem(text=r"2 + 2 </think> \boxed{4}", token_count=9, finish_reason="stop", gold=("4",))"""

    text: str
    """Without the prompt."""
    token_count: int
    finish_reason: str
    gold: tuple[str, ...]
    """One is enough."""
    problem: str = ""
    """Its text, without template."""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All columns of the problem's row in the data."""
    task: str = ""
    """Name of its task."""
    turns: tuple[str, ...] = ()
    """Texts of the policy's turns; none given where there is one, which is `text`."""
    max_tokens: int | None = None
    """Longest completion of the stage that it was sampled in; None in a run without stages."""


class CheckedProgram(NamedTuple):
    """Example: CheckedProgram(Status.WRONG, "print(1)", passed_share=0.5, detail="test 2: another output was expected")"""

    status: Status
    answer: str | None
    passed_share: float = 0.0
    """Share of its tests that a program passed."""
    detail: str = ""
    """Why a program is wrong; no expected value."""


@dataclass(frozen=True, slots=True)
class GroupItem:
    """The completions of a problem that have a reward so far, for own rewards that compare them."""

    texts: tuple[str, ...]
    token_counts: tuple[int, ...]
    finish_reasons: tuple[str, ...]
    statuses: tuple[Status, ...]
    answers: tuple[str | None, ...]
    gold: tuple[str, ...]
    problem: str
    row: Mapping[str, Any] = field(repr=False)
    task: str


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """By reward, a value for each completion; None where it is not judged."""

    values: Mapping[str, Sequence[float | None]]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RewardInput:
    """The status is a judged one, or UNPARSEABLE_GOLD with `rewards.unparseable_gold: reward`."""

    text: str
    """With the `<think>` of the chat template."""
    token_count: int
    finish_reason: str
    status: Status
    answer: str | None
    passed_share: float = 0.0
    """Of a program's tests."""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All columns of the problem's row in the data."""
    turns: tuple[str, ...] = ()
    """As in `JudgeItem`."""
