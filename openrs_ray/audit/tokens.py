"""A recorded step as arrays: rewards, advantages, and who gave which log-probabilities."""

from dataclasses import dataclass

import numpy as np

from openrs_ray.audit.run import Recorded


@dataclass(frozen=True)
class StepTokens:
    """A step as arrays; places are [groups, samples]."""

    rewards: np.ndarray
    advantages: np.ndarray
    """As recorded; NaN where left out of the loss."""
    sampler: list[list[np.ndarray]]
    """Log-probabilities of the sampled tokens."""
    learner: list[list[np.ndarray | None]]
    """None of a rollout that adds nothing to the loss."""
    reference: list[list[np.ndarray | None]]
    entropy: list[list[np.ndarray | None]]
    """In nats, where it has a weight in the loss."""

    @classmethod
    def of(cls, part: Recorded) -> "StepTokens":
        marks = [[rollout.sampled for rollout in group.rollouts] for group in part.groups]

        def column(name: str) -> list[list[np.ndarray | None]]:
            return [
                [_sampled(row[name], own) for row, own in zip(rows, several, strict=True)]
                for rows, several in zip(part.rows, marks, strict=True)
            ]

        rows = [[row["advantage"] for row in several] for several in part.rows]
        values = np.array([[np.nan if one is None else one for one in several] for several in rows], dtype=np.float64)
        sampler = [[r.logprobs[r.sampled] for r in group.rollouts] for group in part.groups]
        rewards = np.stack([group.rewards() for group in part.groups])
        scored = (column(name) for name in ("learner_logprobs", "reference_logprobs", "entropies"))
        return cls(rewards, values, sampler, *scored)

    @property
    def scored(self) -> bool:
        """True where the record has something of the learner."""
        return any(values is not None for several in self.learner for values in several)


def _sampled(values: list[float] | None, marks: np.ndarray) -> np.ndarray | None:
    """Values of the sampled tokens. ValueError, as NumPy has it, where there are not as many as tokens."""
    return None if values is None else np.array(values, dtype=np.float32)[marks]
