"""Intervals against published values and by simulated coverage."""

import numpy as np
import pytest

from openrs_ray.intervals import mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # R. G. Newcombe, 1998, Statistics in Medicine 17:857-872, table I, method 3 (score, no continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.mean == successes / trials


def test_wilson_bounds_solve_the_score_equation() -> None:
    interval = wilson_interval(37, 120)
    for bound in (interval.low, interval.high):
        assert abs(37 / 120 - bound) == pytest.approx(1.959963984540054 * np.sqrt(bound * (1 - bound) / 120), rel=1e-12)


def test_one_sample_per_problem_is_wilson_and_seeds_decide_the_rest() -> None:
    binary = np.array([[1.0], [0.0], [1.0], [1.0]])
    assert mean_interval(binary) == wilson_interval(3, 4)
    several = np.random.default_rng(1).random((50, 4)) < 0.5
    assert mean_interval(several) == mean_interval(several) != mean_interval(several, seed=1)


def test_bootstrap_width_is_that_of_the_mean_over_problems() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.random((400, 1))
    scores = (rng.random((400, 8)) < difficulty).astype(float)
    interval = mean_interval(scores)
    error = scores.mean(axis=1).std(ddof=1) / np.sqrt(400)  # the clusters' central limit, in closed form
    assert interval.mean == pytest.approx(scores.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    treating_all_as_independent = wilson_interval(scores.sum(), scores.size)
    assert interval.high - interval.low > 1.5 * (treating_all_as_independent.high - treating_all_as_independent.low)


@pytest.mark.parametrize("samples", [1, 4])
def test_coverage_is_near_95_percent(samples: int) -> None:
    rng, covered = np.random.default_rng(7), 0
    for _ in range(300):
        difficulty = rng.beta(0.8, 1.2, size=(100, 1))  # mean 0.4
        scores = (rng.random((100, samples)) < difficulty).astype(float)
        interval = mean_interval(scores, resamples=300)
        covered += interval.low <= 0.4 <= interval.high
    assert 0.92 <= covered / 300 <= 0.98


def test_unjudged_completions_are_left_out() -> None:
    scores = np.array([[1.0, np.nan], [0.0, 1.0], [np.nan, np.nan], [0.0, 0.0]])
    assert mean_interval(scores).mean == pytest.approx(0.5)  # problems 1, 0.5 and 0
    with pytest.raises(ValueError):
        mean_interval(np.full((3, 2), np.nan))


def test_all_right_is_not_certainty() -> None:
    interval = mean_interval(np.ones((30, 4)))
    assert interval.mean == interval.high == 1.0 and 0.85 < interval.low < 0.95
    assert str(wilson_interval(50, 100)) == "50.0 % [40.4, 59.6]"
