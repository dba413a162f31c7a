"""Length reward: shorter than the others of the group is better."""

from collections.abc import Sequence

import numpy as np


def reward(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """0.5 - (length - shortest) / (longest - shortest), for wrong completions at most 0.

    Kimi k1.5 (arXiv 2501.12599), section 2.3.3.
    """
    spread = np.asarray(lengths) - min(lengths)
    if not spread.any():
        return [0.0] * len(lengths)
    values = 0.5 - spread / spread.max()
    rewards: list[float] = np.where(correct, values, np.minimum(values, 0.0)).tolist()
    return rewards
