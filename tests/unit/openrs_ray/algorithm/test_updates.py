"""Metrics of several updates as those of one step, and ages counted in updates."""

import numpy as np
import pytest

from openrs_ray.algorithm.updates import ages_in_updates, over_updates, shares
from openrs_ray.records import Completion, Group, Problem, Rollout, VersionSpan


def test_shares_are_whole_groups_in_order() -> None:
    assert [list(range(12))[part] for part in shares(12, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ValueError, match="10 groups do not divide into 3 updates"):
        shares(10, 3)


def figures(loss: float, tokens: float) -> dict[str, float]:
    return {
        "loss": loss,
        "completion_tokens": tokens,
        "packed_tokens": 2 * tokens,
        "seconds": 1.5,
        "learning_rate": 0.1,
        "mismatch_kl": loss / 10,
    }


def test_an_update_weighs_as_many_tokens_as_it_trained_on() -> None:
    metrics = over_updates([figures(1.0, 30), figures(5.0, 10), figures(9.0, 0)])
    assert metrics == {
        "loss": 2.0,
        "completion_tokens": 40,
        "packed_tokens": 80,
        "seconds": 4.5,
        "learning_rate": 0.1,
        "mismatch_kl": 0.2,
        "first_mismatch_kl": 0.1,
        "updates": 3,
    }
    assert over_updates([figures(1.0, 0), figures(3.0, 0)])["loss"] == 2.0


def test_the_first_mismatch_is_of_the_first_update_that_has_tokens_to_measure_it_on() -> None:
    """Of four updates the first two have groups without spread only, of which nothing is computed."""
    assert (
        over_updates([figures(0.0, 0), figures(0.0, 0), figures(7.0, 10), figures(9.0, 10)])["first_mismatch_kl"] == 0.7
    )
    assert over_updates([figures(0.0, 0), figures(0.0, 0)])["first_mismatch_kl"] == 0.0


def aged(*spans: tuple[int, int]) -> Group:
    """A group of one rollout; `spans`: (version, number of tokens), in order."""
    ends = np.cumsum([tokens for _, tokens in spans])
    versions = tuple(
        VersionSpan(version, int(end - tokens), int(end)) for (version, tokens), end in zip(spans, ends, strict=True)
    )
    nothing = np.zeros(ends[-1], dtype=np.int32), np.zeros(ends[-1], dtype=np.float32)
    return Group(0, Problem(0, "", (1,), ("",)), (Rollout.of([Completion(0, 0, *nothing, "stop", versions, 0)]),), ())


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_the_oldest_possible_token_is_as_old_as_the_bound_says(staleness: int) -> None:
    """Counted one by one: 4 updates for every step since the token was sampled, and three of its own step."""
    step, updates = 9, 4
    oldest = [aged((step - 1 - staleness, 3)) for _ in range(updates)]
    ages = ages_in_updates([[one] for one in oldest], step, updates)
    assert ages["age_in_updates_max"] == (staleness + 1) * updates - 1
    assert ages["age_in_updates_mean"] == staleness * updates + (0 + 1 + 2 + 3) / 4


def test_the_mean_age_is_over_tokens() -> None:
    ages = ages_in_updates([[aged((8, 1), (9, 1))], [aged((9, 6))]], 10, 2)
    assert ages == {"age_in_updates_mean": (2 + 0 + 6 * 1) / 8, "age_in_updates_max": 2}
