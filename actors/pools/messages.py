"""Messages between the collector and the reward pool: rollouts to it, verdicts and texts back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from openrs_ray.data.completions import Texts
from openrs_ray.records import Message, Problem, Rollout, Verdict
from openrs_ray.rewards.records import JudgeItem


@dataclass(frozen=True, slots=True, eq=False)
class SampledItem(Message):
    """A rollout to judge, with its problem. The pool makes its texts."""

    token_ids: np.ndarray
    """int32 [tokens]"""
    given: np.ndarray | None
    """bool [tokens], True for tokens that were not sampled; None if all were."""
    finish_reason: str
    gold: tuple[str, ...]
    problem: str
    """Its text."""
    row: Mapping[str, Any] = field(repr=False)
    task: str
    max_tokens: int | None = None
    """As in `JudgeItem`."""

    @classmethod
    def of(cls, rollout: Rollout, problem: Problem, max_tokens: int | None = None) -> Self:
        given = None if rollout.sampled.all() else ~rollout.sampled
        about = problem.gold, problem.text, problem.row, problem.task
        return cls(rollout.token_ids, given, rollout.finish_reason, *about, max_tokens)

    @property
    def sampled(self) -> np.ndarray:
        return np.ones(len(self.token_ids), dtype=np.bool_) if self.given is None else ~self.given

    def decoded(self, texts: Texts) -> JudgeItem:
        """The item as rewards see it."""
        seen = texts.judged, int(np.count_nonzero(self.sampled)), self.finish_reason
        return JudgeItem(*seen, self.gold, self.problem, self.row, self.task, texts.turns, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Judged(Message):
    """The reward pool's answer: a verdict and the rollout's texts."""

    verdict: Verdict
    texts: Texts
