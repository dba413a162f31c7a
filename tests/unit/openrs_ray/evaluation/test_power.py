"""The smallest difference that a comparison can show, against figures of the field and simulated comparisons."""

import numpy as np
import pytest

from openrs_ray.evaluation.analysis import power_rows
from openrs_ray.evaluation.paired import Pair, SignFlips
from openrs_ray.evaluation.power import (
    PLANNED,
    Measured,
    Rate,
    Spread,
    average_difference,
    plan_lines,
    smallest_difference,
)


@pytest.mark.parametrize(("problems", "samples", "points"), [(30, 1, 26), (30, 16, 6.5), (500, 16, 1.6)])
def test_planned_differences(problems: int, samples: int, points: float) -> None:
    assert 100 * smallest_difference(problems, samples) == pytest.approx(points, rel=0.05)


def power_of(gain: float, problems: int, samples: int, rng: np.random.Generator, spread: float = 0.0) -> float:
    """Share of simulated comparisons that find it, with chances around a half where there is room for it."""
    found, trials = 0, 800
    for number in range(trials):
        theirs = 0.25 + 0.5 * rng.beta(0.5, 0.5, size=(problems, 1))
        ours = np.clip(theirs + gain + spread * rng.normal(size=(problems, 1)), 0, 1)
        means = [(rng.random((problems, samples)) < side).astype(float).mean(axis=1) for side in (ours, theirs)]
        flips = SignFlips.draw(means[0] - means[1], np.ones(problems), np.random.default_rng(number), draws=1000)
        found += flips.p() < 0.05
    return found / trials


@pytest.mark.parametrize(
    ("problems", "samples", "spread"), [(30, 4, 0.0), (30, 16, 0.1), (120, 2, 0.1), (120, 16, 0.0)]
)
def test_the_formula_holds_in_simulated_comparisons(problems: int, samples: int, spread: float) -> None:
    rng = np.random.default_rng(1)
    chance = 0.25 + 0.5 * rng.beta(0.5, 0.5, size=200_000)
    gain = 0.0
    for _ in range(5):  # the variance of our side depends on the gain itself
        ours = np.clip(chance + gain + spread * rng.normal(size=len(chance)), 0, 1)
        within = float(np.mean(ours * (1 - ours) + chance * (1 - chance)))
        gain = smallest_difference(problems, samples, Spread(spread**2, within))
    assert 0.74 <= power_of(gain, problems, samples, rng, spread) <= 0.86
    assert power_of(gain / 2, problems, samples, rng, spread) < 0.45


def test_variances_are_measured_apart() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.uniform(0.2, 0.5, size=(4000, 1))
    ours = theirs + rng.uniform(0.0, 0.4, size=(4000, 1))
    pair = Pair(*((rng.random((4000, k)) < side).astype(float) for side, k in ((ours, 8), (theirs, 4))))
    found = Measured.of(pair)
    within = float(np.mean(ours * (1 - ours)) / 8 + np.mean(theirs * (1 - theirs)) / 4)
    assert found.spread.between == pytest.approx(0.4**2 / 12, rel=0.25)
    assert found.spread.within == pytest.approx(within, rel=0.03)
    assert (found.problems, found.completions) == (4000, 4000 * 12)
    more = found.smallest(4)
    assert more is not None and more == pytest.approx(
        2.8016 * np.sqrt((found.spread.between + within / 4) / 4000), rel=0.01
    )
    one_each = Measured.of(Pair(pair.ours[:, :1], pair.theirs[:, :1]))
    assert one_each.smallest() is not None and one_each.smallest(4) is None


def test_copies_of_a_problem_show_no_more_than_one() -> None:
    rng = np.random.default_rng(3)
    once = [(rng.random((40, 4)) < rng.random((40, 1))).astype(float) for _ in range(2)]
    copies = Pair(*(np.repeat(side, 5, axis=0) for side in once), np.repeat(np.arange(40), 5))
    single = Measured.of(Pair(*once)).smallest()
    assert single is not None and Measured.of(copies).smallest() == pytest.approx(single, rel=0.01)


def test_what_is_planned_is_said() -> None:
    lines = plan_lines({"AIME24": 30, "MATH-500": 500}, 16, 2, Rate(hours=0.001, dollars=0.002))
    assert "16 samples" in lines[0] and len(lines) == 4
    assert "AIME24, 30 problems: about 6.6 points; with 64 samples 3.3, for 2,880 more completions" in lines[1]
    assert "(about 2.9 h, $ 5.76)" in lines[1]
    both = 100 * average_difference([smallest_difference(30, 16), smallest_difference(500, 16)])
    assert f"average: about {both:.1f} points" in lines[3]
    assert "h, $" not in "".join(plan_lines({"AIME24": 30}, 16, 2))
    assert PLANNED.within == 0.25


def test_costs_of_more_samples() -> None:
    parts = {"a": Measured(30, 960, Spread(0.0, 0.01)), "b": Measured(30, 960, Spread(0.0, 0.01))}
    rows = power_rows(parts, 2, Rate(0.001, 0.0))
    assert (
        rows["a"]["completions"] == 3 * 960 and rows["a"]["hours"] == pytest.approx(2.88) and rows["a"]["dollars"] == 0
    )
    assert rows["average of all"]["smallest"] == pytest.approx(rows["a"]["smallest"] / np.sqrt(2))
    assert rows["average of all"]["completions"] == 6 * 960
    assert set(power_rows(parts, 3, None)) == {"a", "b"}, "no average where the figure of a third is refused"
