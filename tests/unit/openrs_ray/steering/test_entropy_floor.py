"""The entropy's weight goes up below the floor and down above it, within its bounds, and acts below the floor only."""

import math

import pytest

from openrs_ray.steering.entropy_floor import EntropyFloor

FLOOR = EntropyFloor(floor=0.2, step=0.005, most=0.012)


def test_a_series_by_hand() -> None:
    """Entropies, and by hand the coefficients and weights of the steps that follow them."""
    coefficient, found = 0.0, []
    for entropy in (0.5, 0.1, 0.1, 0.1, 0.3, 0.2, math.nan, 0.9, 0.9, 0.9):
        coefficient = FLOOR.coefficient(coefficient, entropy)
        found.append((coefficient, FLOOR.weight(coefficient, entropy)))
    coefficients, weights = zip(*found, strict=True)
    assert coefficients == pytest.approx([0, 0.005, 0.010, 0.012, 0.007, 0.007, 0.007, 0.002, 0, 0])
    assert weights == pytest.approx([0, 0.005, 0.010, 0.012, 0, 0.007, 0, 0, 0, 0])


def test_many_steps_up_and_down_come_back_to_nothing() -> None:
    wide, coefficient = EntropyFloor(0.2, 0.001, 100.0), 0.0
    for entropy in [0.1] * 1000 + [0.3] * 1000:
        coefficient = wide.coefficient(coefficient, entropy)
    assert coefficient == 0.0, "rounding does not add up"


def test_a_policy_that_forgets_without_the_bonus_is_held_at_the_floor() -> None:
    """A toy of a policy: its entropy falls by 0.01 a step, and a weight of w raises it by 3 w."""
    entropy, coefficient, seen = 0.6, 0.0, []
    for _ in range(400):
        coefficient = FLOOR.coefficient(coefficient, entropy)
        entropy += 3 * FLOOR.weight(coefficient, entropy) - 0.01
        seen.append(entropy)
    assert min(seen[100:]) > 0.15 and max(seen[100:]) < 0.25
