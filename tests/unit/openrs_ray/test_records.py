"""Figures of the records that travel."""

import numpy as np
import pytest

from openrs_ray.records import Completion, Group, Problem, Rollout, VersionSpan, age_metrics

PROBLEM = Problem(index=0, text="1 + 1", prompt_ids=(1,), gold=("2",))


def rollout(*spans: VersionSpan) -> Rollout:
    tokens = spans[-1].end
    return Rollout.of(
        [Completion(0, 0, np.zeros(tokens, dtype=np.int32), np.zeros(tokens, dtype=np.float32), "stop", spans, 0)]
    )


def test_ages_are_counted_by_token() -> None:
    # Seven tokens of version 9, two of version 8 and one of version 6, trained on as version 9 becomes 10.
    first = rollout(VersionSpan(8, 0, 2), VersionSpan(9, 2, 5))
    second = rollout(VersionSpan(6, 0, 1), VersionSpan(9, 1, 3))
    groups = [
        Group(0, PROBLEM, (first, second), ()),
        Group(1, PROBLEM, (rollout(VersionSpan(9, 0, 2)),), ()),
    ]
    assert age_metrics(groups, 9) == pytest.approx(
        {
            "age_mean": (2 * 1 + 1 * 3) / 10,
            "age_max": 3,
            "age_0_share": 0.7,
            "age_1_share": 0.2,
            "age_2_share": 0.0,
            "age_3_share": 0.1,
        }
    )


def test_a_synchronous_step_has_age_0() -> None:
    groups = [Group(0, PROBLEM, (rollout(VersionSpan(4, 0, 3)),), ())]
    assert age_metrics(groups, 4) == {"age_mean": 0.0, "age_max": 0.0, "age_0_share": 1.0}


def test_a_token_newer_than_the_policy_that_trains_is_an_error() -> None:
    with pytest.raises(ValueError):
        age_metrics([Group(0, PROBLEM, (rollout(VersionSpan(5, 0, 3)),), ())], 4)
