"""The weight of the entropy in the loss, adapted to a floor: Skywork-OR1 (arXiv 2505.22312, adaptive entropy control)."""

from dataclasses import dataclass

_ROUNDING = 1e-12
"""Coefficients are whole steps; sums of them are rounded to this."""


@dataclass(frozen=True, slots=True)
class EntropyFloor:
    """Example: EntropyFloor(floor=0.2, step=0.005, most=0.05)"""

    floor: float
    """Target of the policy's entropy, in nats per token."""
    step: float
    """Change of the coefficient after each step."""
    most: float
    """Largest coefficient."""

    def coefficient(self, before: float, entropy: float) -> float:
        """c of the next step, within [0, most]: c + step where the entropy is below the floor, c - step where it is above.

        `entropy` is that of the step before: c moves before it is used. Unchanged where the entropy is unknown (NaN). The paper's
        rule has no bounds, but public launch scripts for it give a least and a largest c; here the least is 0, so that certainty
        is never rewarded.
        """
        change = self.step * ((entropy < self.floor) - (entropy > self.floor))
        return round(min(self.most, max(0.0, before + change)) / _ROUNDING) * _ROUNDING

    def weight(self, coefficient: float, entropy: float) -> float:
        """Weight of the entropy in the next step's loss: c where the entropy is at the floor or below, else 0."""
        return coefficient if entropy <= self.floor else 0.0
