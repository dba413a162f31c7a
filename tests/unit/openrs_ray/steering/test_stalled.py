"""Held-out accuracy has stalled when none of the last evaluations is better than all before them."""

import pytest

from openrs_ray.steering.stalled import stalled


@pytest.mark.parametrize(
    ("accuracies", "since", "evaluations", "is_stalled"),
    [
        ({0: 0.5}, 0, 1, False),  # nothing to compare with
        ({0: 0.5, 10: 0.5}, 0, 1, True),  # equal is no gain
        ({0: 0.5, 10: 0.6, 20: 0.55, 30: 0.58}, 0, 2, True),
        ({0: 0.5, 10: 0.6, 20: 0.55, 30: 0.58}, 0, 3, False),  # 0.6 is among the last three
        ({0: 0.5, 10: 0.6, 20: 0.55, 30: 0.61}, 0, 2, False),
        ({0: 0.5, 10: 0.6, 20: 0.55, 30: 0.58}, 20, 2, False),  # since the reset there is none before the last two
        ({0: 0.5, 10: 0.6, 20: 0.55, 30: 0.54, 40: 0.5}, 20, 2, True),
        ({30: 0.58, 0: 0.5, 20: 0.55, 10: 0.6}, 0, 2, True),  # in any order
    ],
)
def test_stalled(accuracies: dict[int, float], since: int, evaluations: int, is_stalled: bool) -> None:
    assert stalled(accuracies, since, evaluations) == is_stalled
