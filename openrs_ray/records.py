"""The records that travel between the actors. None holds a tensor, a Ray handle or a tokenizer.

A problem is drawn at a *position* (0, 1, 2, ... over the whole run, across epochs) and becomes a group of rollouts, each with
a verdict. A rollout is one completion, or several with given tokens between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

import numpy as np

FinishReason = Literal["stop", "length"]


class Message:
    """Base of slotted dataclasses that are sent by the thousand: pickled as a constructor call, in a third of the time."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, name) for name in self.__slots__)


class Status(StrEnum):
    """Only the first four judge the completion; the others leave it out of the loss."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNCHECKED = "unchecked"
    """There is no gold to compare with (`answer.kind: none`): other rewards decide."""
    UNPARSEABLE_GOLD = "unparseable_gold"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def judged(self) -> bool:
        return self in (Status.CORRECT, Status.WRONG, Status.NO_ANSWER, Status.UNCHECKED)


@dataclass(frozen=True, slots=True)
class Problem:
    """Example: Problem(index=17, text="12 + 30", prompt_ids=(1, 9, 4), gold=("42",))"""

    index: int
    """Row in the loaded data, after filtering."""
    text: str
    """As the user wrote it, without template."""
    prompt_ids: tuple[int, ...]
    """With template; tokenized once, at loading."""
    gold: tuple[str, ...]
    """Any one of them is correct."""
    task: str = ""
    """Name of its task (`openrs_ray.config.task`)."""
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """All columns of its row in the data, for own rewards and environments."""


@dataclass(frozen=True, slots=True)
class VersionSpan(Message):
    """Tokens [start, end) were sampled by this policy version."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion(Message):
    """One answer of an engine to one request.

    Example: Completion(position=40, sample=3, token_ids=[5, 9, 2], logprobs=[-0.1, -1.2, -0.0],
                        finish_reason="stop", versions=(VersionSpan(7, 0, 3),), worker=0)
    """

    position: int
    """Of its group."""
    sample: int
    """Number in its group, 0-based."""
    token_ids: np.ndarray
    """int32 [tokens], with the end-of-sequence token if sampled."""
    logprobs: np.ndarray
    """float32 [tokens], of the distribution each token was drawn from (`loss.tempered` false: at temperature 1)."""
    finish_reason: FinishReason
    """"stop" (end of sequence) or "length" (cut at the limit)."""
    versions: tuple[VersionSpan, ...]
    worker: int


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """All turns of one sample: everything that follows the problem's prompt.

    Example: Rollout(position=40, sample=3, token_ids=[5, 2, 8, 9, 2], sampled=[1, 1, 0, 1, 1],
                     logprobs=[-0.1, -1.2, 0, -0.3, -0.0], finish_reason="stop",
                     versions=(VersionSpan(7, 0, 2), VersionSpan(8, 3, 5)), worker=0)
    """

    position: int
    sample: int
    token_ids: np.ndarray
    """int32 [tokens], sampled and given ones."""
    sampled: np.ndarray
    """bool [tokens]; given ones are context, in no loss."""
    logprobs: np.ndarray
    """float32 [tokens], as in `Completion`; 0 where given."""
    finish_reason: FinishReason
    """Of the last turn."""
    versions: tuple[VersionSpan, ...]
    worker: int
    """Worker of the last turn."""

    def __post_init__(self) -> None:
        if not len(self.token_ids) == len(self.sampled) == len(self.logprobs):
            tokens, marks, values = len(self.token_ids), len(self.sampled), len(self.logprobs)
            raise ValueError(f"a rollout of {tokens} tokens has {marks} marks and {values} log-probabilities")

    @classmethod
    def of(cls, turns: Sequence[Completion | Sequence[int]]) -> Rollout:
        """Completions with the given token ids between them; given ones at the end are left out."""
        if len(turns) == 1 and isinstance(only := turns[0], Completion) and len(only.token_ids):
            return cls._of_one(only)
        ids, sampled, logprobs = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
        versions = list[VersionSpan]()
        start = end = worker = 0
        for turn in turns:
            if isinstance(turn, Completion):
                last, tokens, values = turn, turn.token_ids, turn.logprobs
                versions += [VersionSpan(span.version, start + span.start, start + span.end) for span in turn.versions]
                if len(tokens):
                    end, worker = start + len(tokens), turn.worker
            else:
                tokens, values = np.array(turn, dtype=np.int32), np.zeros(len(turn), dtype=np.float32)
            ids.append(tokens)
            sampled.append(np.full(len(tokens), isinstance(turn, Completion)))
            logprobs.append(values)
            start += len(tokens)
        if not any(isinstance(turn, Completion) for turn in turns):
            raise ValueError("a rollout has at least one completion")
        tokens, marks, values = (np.concatenate(parts)[:end] for parts in (ids, sampled, logprobs))
        return cls(last.position, last.sample, tokens, marks, values, last.finish_reason, _merged(versions), worker)

    @classmethod
    def _of_one(cls, turn: Completion) -> Rollout:
        # Copied, because a view would keep the whole message in memory.
        ids, logprobs = turn.token_ids.copy(), turn.logprobs.copy()
        about = turn.finish_reason, _merged(turn.versions), turn.worker
        return cls(turn.position, turn.sample, ids, np.ones(len(ids), dtype=np.bool_), logprobs, *about)

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def turns(self) -> int:
        """Stretches of sampled tokens."""
        if self.sampled.all():
            return min(1, len(self.sampled))
        return int((np.diff(self.sampled.astype(np.int8), prepend=0) == 1).sum())

    @property
    def sampled_tokens(self) -> int:
        return int(np.count_nonzero(self.sampled))

    @property
    def versions_cover(self) -> bool:
        """True when each sampled token is in one span, and no given one is in any."""
        if len(self.versions) == 1 and (self.versions[0].start, self.versions[0].end) == (0, len(self.sampled)):
            return bool(self.sampled.all())
        covered = np.zeros(len(self.sampled), dtype=np.int32)
        for span in self.versions:
            covered[span.start : span.end] += 1
        return np.array_equal(covered, self.sampled)


def _merged(spans: Sequence[VersionSpan]) -> tuple[VersionSpan, ...]:
    """Joins touching spans of one version."""
    merged = list[VersionSpan]()
    for span in spans:
        if merged and (merged[-1].version, merged[-1].end) == (span.version, span.start):
            span = VersionSpan(span.version, merged.pop().start, span.end)
        merged.append(span)
    return tuple(merged)


FAILED_ENVIRONMENT = "environment: "
"""Begins the detail of a rollout's verdict when its environment failed."""


@dataclass(frozen=True, slots=True)
class Verdict(Message):
    """Example: Verdict(Status.CORRECT, rewards={"accuracy": 1.0, "format": 1.0}, reward=3.0, answer="42", seconds=0.004)"""

    status: Status
    rewards: Mapping[str, float]
    """Unweighted, by name; empty when the check did not judge."""
    reward: float | None
    """Weighted sum; None leaves the rollout out of the loss."""
    answer: str | None = None
    seconds: float = 0.0
    detail: str = ""
    """Reason of a timeout or error, or of a program that fails its tests."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Settings that a group is sampled with, fixed at its admission.

    Example: SamplingSettings(temperature=0.7, max_completion_tokens=4096, stage=1)
    """

    temperature: float
    max_completion_tokens: int
    """Of all that follows the prompt."""
    stage: int | None = None
    """Of `rollout.stages`, counted from 0; None in a run without, and in evaluations."""


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one drawn problem with their verdicts, in sample order."""

    position: int
    problem: Problem
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict, ...]
    texts: tuple[str, ...] = ()
    """Whole texts for the record, with the opening that the template wrote; empty when read from the record."""
    sampling: SamplingSettings | None = None
    """None when read from the record of an older version: that of the run's config."""

    def rewards(self) -> np.ndarray:
        """float64 [rollouts]; NaN where one is left out of the loss."""
        return np.array([np.nan if v.reward is None else v.reward for v in self.verdicts], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs(Message):
    """Log-probabilities, and entropies, of a micro-batch's or a rollout's sampled tokens, as the loss was made of them."""

    policy: np.ndarray
    """float32 [sampled tokens], under the weights before the update."""
    reference: np.ndarray | None = None
    """float32 [sampled tokens], under the frozen reference; None without a KL penalty."""
    entropy: np.ndarray | None = None
    """float32 [sampled tokens], in nats, of the distribution that each token is one of; None where it has no weight."""

    def part(self, tokens: slice) -> TokenLogprobs:
        others = (None if part is None else part[tokens] for part in (self.reference, self.entropy))
        return TokenLogprobs(self.policy[tokens], *others)


Scored = Mapping[tuple[int, int], TokenLogprobs]
"""By place of the group in its step, and sample. Rollouts that add nothing to the loss are not scored."""


def age_metrics(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Ages of the sampled tokens, counted in policy versions before `version`.

    Example: {"age_mean": 0.25, "age_max": 1.0, "age_0_share": 0.75, "age_1_share": 0.25}
    """
    spans = [span for group in groups for rollout in group.rollouts for span in rollout.versions]
    tokens = np.bincount([version - span.version for span in spans], [span.end - span.start for span in spans])
    shares = tokens / tokens.sum()
    return {
        "age_mean": float(shares @ np.arange(len(shares))),
        "age_max": float(shares.nonzero()[0].max()),
        **{f"age_{age}_share": float(share) for age, share in enumerate(shares)},
    }
