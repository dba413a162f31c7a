"""A broken rule."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alarm:
    """Example: Alarm("entropy_rise", 34, since=29, value=1.3, bound=0.9, baseline=0.3, window=5, in_a_row=1, text="...")"""

    rule: str
    step: int
    since: int
    """Oldest policy version that the figure is about; from it on to `step`, no checkpoint is good."""
    value: float
    bound: float
    baseline: float
    window: int
    """Steps, or evaluations."""
    in_a_row: int
    """How often the rule has been broken without a break."""
    text: str
    """The finding as a clause."""
