"""The records that travel between the actors. All frozen; none holds a tensor, a Ray handle or a tokenizer.

A problem is drawn at a *position* (0, 1, 2, ... over the whole run, across epochs), sampled into a group of completions,
each completion is judged into a verdict, and the finished group goes to the learner. Every completion knows which policy
version sampled each of its tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Status(StrEnum):
    """What became of a check. Only the first three judge the completion; the others leave it out of the loss."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNPARSEABLE_GOLD = "unparseable_gold"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def judged(self) -> bool:
        return self in (Status.CORRECT, Status.WRONG, Status.NO_ANSWER)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, ready to sample from.

    Example: Problem(index=17, text="12 + 30", prompt_ids=(1, 9, 4), gold=("42",))
    """

    index: int
    """Row in the loaded data, 0-based, after filtering."""
    text: str
    """The problem as the user wrote it, without template."""
    prompt_ids: tuple[int, ...]
    """The templated prompt as token ids; made once, at loading."""
    gold: tuple[str, ...]
    """Accepted answers; any one of them makes a completion correct."""


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled by this policy version."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled answer.

    Example: Completion(position=40, sample=3, token_ids=[5, 9, 2], logprobs=[-0.1, -1.2, -0.0],
                        finish_reason="stop", versions=(VersionSpan(7, 0, 3),), worker=0)
    """

    position: int
    """Draw position of its group."""
    sample: int
    """Which of the group's completions, 0-based."""
    token_ids: np.ndarray
    """int32 [tokens], the end-of-sequence token included when it was sampled."""
    logprobs: np.ndarray
    """float32 [tokens], log-probability of each token under the distribution it was drawn from (with
    `loss.tempered` false: at temperature 1)."""
    finish_reason: str
    """"stop" (end of sequence) or "length" (cut at the limit)."""
    versions: tuple[VersionSpan, ...]
    worker: int
    """Which rollout worker sampled it."""

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one completion.

    Example: Verdict(Status.CORRECT, rewards={"accuracy": 1.0, "format": 1.0}, reward=3.0, answer="42", seconds=0.004)
    """

    status: Status
    rewards: Mapping[str, float]
    """Unweighted value of each reward by name; empty when the check did not judge."""
    reward: float | None
    """Weighted sum of `rewards`; None leaves the completion out of the loss."""
    answer: str | None = None
    """The answer that was extracted, if any."""
    seconds: float = 0.0
    """Time the check took."""
    detail: str = ""
    """What went wrong, for timeouts and errors."""


@dataclass(frozen=True, slots=True)
class Group:
    """All completions of one drawn problem with their verdicts, in sample order."""

    position: int
    problem: Problem
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]

    def rewards(self) -> np.ndarray:
        """float64 [completions]; NaN where the completion is left out of the loss."""
        return np.array([np.nan if v.reward is None else v.reward for v in self.verdicts], dtype=np.float64)


def age_metrics(groups: Sequence[Group], version: int) -> dict[str, float]:
    """How many versions older than `version` were the policies that sampled the completion tokens: mean, largest, shares.

    Example: {"age_mean": 0.25, "age_max": 1.0, "age_0_share": 0.75, "age_1_share": 0.25}
    """
    spans = [span for group in groups for completion in group.completions for span in completion.versions]
    tokens = np.bincount([version - span.version for span in spans], [span.end - span.start for span in spans])
    shares = tokens / tokens.sum()
    return {
        "age_mean": float(shares @ np.arange(len(shares))),
        "age_max": float(shares.nonzero()[0].max()),
        **{f"age_{age}_share": float(share) for age, share in enumerate(shares)},
    }
