"""Noise of a figure from step to step, and the departure of a window's mean that it explains."""

import math
from collections.abc import Sequence
from statistics import median

_PER_SD = 0.6745 * math.sqrt(6)
"""Median of |x - 2y + z| of three independent normal figures, in their standard deviation; a steady rise cancels out."""
_MARGIN, _EARLY = 1.25, 4.0
"""By simulation: 1 to 10 % of healthy runs of 150 to 500 steps raise an alarm, and up to 1 % go back (docs/guard.md)."""
LEAST = 3
"""Figures that tell their noise."""


def departure_by_noise(figures: Sequence[float], window: int, baseline_steps: int | None) -> float:
    """Departure of a window's mean from the baseline that steady figures like these hardly show.

    Args:
        figures: of all steps so far, at least `LEAST`.
        window: steps in a window.
        baseline_steps: first steps, whose mean is the baseline; None where it is the mean of the best window so far.

    The largest of n standard normal figures is expected below sqrt(2 ln n) (S. Boucheron, G. Lugosi and P. Massart, 2013,
    Concentration Inequalities, theorem 2.5), and so is the smallest below 0: what noise alone shows grows with the run.
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(figures, figures[1:], figures[2:], strict=False)]
    deviation = median(bends) / _PER_SD * (1 + _EARLY / len(bends))
    # The best window lies above the mean by as much as the worst one below.
    apart = 2 / math.sqrt(window) if baseline_steps is None else math.sqrt(1 / window + 1 / baseline_steps)
    return _MARGIN * math.sqrt(2 * math.log(len(figures))) * deviation * apart
