"""Length reward: shorter than the others of the group is better. It needs the whole group, so it comes after judging."""

from collections.abc import Sequence

import numpy as np


def length_rewards(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """0.5 - (length - shortest) / (longest - shortest) for correct completions of one problem; of wrong ones at most 0.

    All 0 where all are equally long. Kimi k1.5 (arXiv 2501.12599, section 2.3.3, "Length Penalty"). Lengths in tokens.
    """
    spread = np.asarray(lengths) - min(lengths)
    if not spread.any():
        return [0.0] * len(lengths)
    values = 0.5 - spread / spread.max()
    rewards: list[float] = np.where(correct, values, np.minimum(values, 0.0)).tolist()
    return rewards
