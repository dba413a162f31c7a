"""A stage ends at its step, or when the mean over a whole window says so; one lucky step does not end it."""

import math

import pytest
from pydantic import ValidationError

from openrs_ray.config.stages import Until
from openrs_ray.steering.stage_end import stage_end


def test_the_step_ends_a_stage_whatever_was_cut() -> None:
    until = Until(step=7, truncated_share_below=0.1)
    assert stage_end(until, 6, [1.0] * 6) is None
    found = stage_end(until, 7, [1.0] * 7)
    assert found is not None and (found.condition, found.sentence) == ("step", "until.step is 7")
    assert stage_end(until, 9, []) is not None, "a resume with an earlier end ends it at once"
    assert stage_end(None, 9, [0.0] * 99) is None, "the last stage"


@pytest.mark.parametrize(
    ("shares", "ends"),
    [
        ([0.0, 0.0], False),  # two steps are no window of three
        ([0.5, 0.5, 0.0], False),  # one lucky step
        ([0.5, 0.0, 0.0, 0.2], True),  # 0.067 over the last three
        ([0.05, 0.05, 0.2], False),  # exactly 0.1 is not below it
        ([0.0, math.nan, 0.0], False),
    ],
)
def test_below(shares: list[float], ends: bool) -> None:
    found = stage_end(Until(truncated_share_below=0.1, window=3), 20, shares)
    assert (found is not None) == ends
    if found is not None:
        assert found.found == pytest.approx(0.2 / 3) and found.steps == (18, 20)
        assert found.sentence == (
            "0.067 of the completions of steps 18 to 20 were cut, which is below until.truncated_share_below (0.1)"
        )


@pytest.mark.parametrize(("shares", "ends"), [([0.5, 0.0], False), ([0.0, 0.6], False), ([0.6, 0.6], True)])
def test_above(shares: list[float], ends: bool) -> None:
    assert (stage_end(Until(truncated_share_above=0.3, window=2), 5, shares) is not None) == ends


def test_both_shares_and_conditions_that_end_nothing() -> None:
    either = Until(truncated_share_below=0.1, truncated_share_above=0.5, window=1)
    found = [stage_end(either, 5, [share]) for share in (0.0, 0.3, 0.9)]
    assert [each and each.condition for each in found] == ["truncated_share_below", None, "truncated_share_above"]
    with pytest.raises(ValidationError, match="needs step, truncated_share_below or truncated_share_above"):
        Until(window=3)
