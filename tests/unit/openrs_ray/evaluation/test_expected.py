"""The expected saving against the same stops worked out sample by sample."""

from statistics import NormalDist

import numpy as np
import pytest

from openrs_ray.evaluation.expected import expectations, expected, expected_lines
from openrs_ray.evaluation.sequential import Plan


def test_two_looks_by_the_bivariate_normal_distribution() -> None:
    """With a huge gain the first look ends it; with none, it does so by chance or by hopelessness, which is one bound."""
    plan, problems = Plan(2), 50
    assert expected(problems, plan, 0.9).share == 0.5 and expected(problems, plan, 0.9).shown == 1.0
    quantile, cdf = NormalDist().inv_cdf, NormalDist().cdf
    deviation = np.sqrt(0.25 / problems)
    shown = quantile(1 - 0.0125 / 2) * deviation
    # The last look shows a gain above its bound; half of its samples are still to come, with the asked gain on average.
    last, rest = quantile(1 - 0.0375 / 2) * deviation / np.sqrt(2), deviation / 2
    asked = plan.difference(problems)
    hopeless = 2 * (last + quantile(0.2) * rest) - asked
    stops = cdf(hopeless / deviation) + 1 - cdf(shown / deviation) if hopeless > -shown else 2 * cdf(-shown / deviation)
    assert expected(problems, plan, 0.0).share == pytest.approx(1 - stops / 2, abs=0.01)


def test_what_it_saves_where_there_is_nothing_little_or_much_to_show() -> None:
    alike, asked, twice = expectations(30, Plan(16))
    assert alike.difference == 0 and twice.difference == 2 * asked.difference == 2 * Plan(16).difference(30)
    assert alike.shown < 0.05 and 0.77 < asked.shown < 0.85 and twice.shown > 0.99
    assert 0.6 < alike.share < 0.8 and 0.7 < asked.share < 0.9 and 0.3 < twice.share < 0.5


def test_what_is_expected_is_said_and_too_small_a_difference_too() -> None:
    head, line = expected_lines({"AIME24": 30}, Plan(16))
    assert "look at 1, 2, 4, 8, 16 samples of each problem (80 % power)" in head
    assert "AIME24: 7" in line and "with a gain of 6.9 points (shown in" in line
    *_, warning = expected_lines({"AIME24": 30}, Plan(16, asked=0.03))
    assert "too few samples for 3.0 points at this power; 16 samples show about 6.9" in warning
