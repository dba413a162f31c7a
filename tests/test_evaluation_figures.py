"""The evaluation's figures against enumeration, closed forms and hand values."""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from openrs_ray.evaluation.figures import Samples, figures, majority, one_run_deviation, pass_at_k, sampling_interval
from openrs_ray.evaluation.paired import compare, corrected, holm, sign_flip_p

NAN = np.nan


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_all_subsets_with_a_hit(k: int) -> None:
    correct = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=float)
    subsets = list(combinations(range(5), k))
    expected = [np.mean([row[list(subset)].any() for subset in subsets]) for row in correct]
    assert pass_at_k(correct, k) == pytest.approx(expected)


def test_pass_at_k_counts_judged_samples_only_and_stays_exact_for_many() -> None:
    judged = pass_at_k(np.array([[1, 0, NAN, 0], [1, NAN, NAN, NAN], [NAN] * 4]), 2)
    assert judged[0] == pytest.approx(2 / 3) and np.isnan(judged[1:]).all()
    many = np.zeros((1, 256))
    many[0, :3] = 1
    assert pass_at_k(many, 64)[0] == pytest.approx(1 - comb(253, 64) / comb(256, 64))


def test_majority_by_hand() -> None:
    classes = np.array([[0, 0, 1], [0, 1, 1], [0, 1, 2], [0, 1, -1], [-1, -1, -1], [-1, -1, 4], [0, 0, 1]])
    correct = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]], dtype=float)
    assert majority(classes, correct) == pytest.approx([1, 0, 1 / 3, 1 / 2, 0, 1, 0])


def test_sampling_interval_has_the_width_of_the_closed_form() -> None:
    rng = np.random.default_rng(2)
    for samples in (2, 8):
        correct = (rng.random((400, samples)) < rng.random((400, 1))).astype(float)
        error = np.sqrt((correct.var(axis=1, ddof=1) / samples).sum()) / 400
        interval = sampling_interval(correct, seed=1)
        assert interval is not None and interval.mean == pytest.approx(correct.mean())
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert sampling_interval(correct, 1) == sampling_interval(correct, 1) != sampling_interval(correct, 2)
    assert sampling_interval(np.ones((5, 1)), seed=1) is None


def test_one_run_deviation_is_that_of_simulated_runs() -> None:
    rng = np.random.default_rng(4)
    chance = rng.beta(0.5, 1.0, size=(30, 1))
    runs = (rng.random((30, 20_000)) < chance).astype(float).mean(axis=0)
    many = (rng.random((30, 2000)) < chance).astype(float)
    assert one_run_deviation(many) == pytest.approx(runs.std(ddof=1), rel=0.03)
    assert one_run_deviation(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5)
    assert one_run_deviation(np.array([[1.0, 0.0], [1.0, NAN]])) is None


def test_figures_of_a_small_table() -> None:
    samples = Samples(
        correct=np.array([[1, 1, 0, NAN], [0, 0, 0, 1]]),
        classes=np.array([[0, 0, 1, -1], [3, 3, -1, 0]]),
        tokens=np.array([[10, 20, 30, 40], [50, 60, 70, 80]]),
        truncated=np.array([[False, False, True, True], [False] * 4]),
        english=np.array([[1.0, 0.5, 0.5, 0.0], [1.0] * 4]),
    )
    found = figures(samples, seed=0)
    assert found.average.mean == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert found.pass_at[1].mean == pytest.approx(found.average.mean)
    assert found.pass_at[2].mean == pytest.approx((1 + 1 / 2) / 2)
    assert found.pass_at[4].mean == 1.0  # the second problem's alone: the first has three judged samples
    assert found.majority is not None and found.majority.mean == 0.5
    assert (found.mean_tokens, found.truncated_share, found.english_share, found.unjudged) == (45, 0.25, 0.75, 1)


def test_sign_flips_by_enumeration() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.5, 0.25, -0.25, 0.75, 0.0, 0.5])
    patterns = [abs(np.dot(signs, values)) >= abs(values.sum()) - 1e-9 for signs in product((1, -1), repeat=6)]
    assert sign_flip_p(values, rng) == pytest.approx(np.mean(patterns))
    assert sign_flip_p(np.zeros(9), rng) == 1.0
    assert sign_flip_p(np.full(5, 0.1), rng) == pytest.approx(2 / 2**5)


def test_drawn_sign_flips_agree_with_the_binomial_sign_test() -> None:
    # Differences of equal size: the sum depends on the number of plus signs alone.
    values = np.array([1.0] * 15 + [-1.0] * 5)
    exact = 2 * sum(comb(20, i) for i in range(6)) / 2**20
    assert sign_flip_p(values, np.random.default_rng(3)) == pytest.approx(exact, abs=0.002)


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(400):
        chance = rng.random((30, 1))
        ours, theirs = ((rng.random((30, 4)) < chance).astype(float) for _ in range(2))
        alarms += sign_flip_p(ours.mean(axis=1) - theirs.mean(axis=1), rng, draws=400) <= 0.05
    assert 0.02 <= alarms / 400 <= 0.08


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_compare_leaves_out_what_only_one_model_has() -> None:
    ours = np.array([[1.0, 1.0], [NAN, NAN], [1.0, 0.0], [0.0, 0.0]])
    theirs = np.array([[0.0], [1.0], [0.0], [NAN]])
    found = compare(ours, theirs, seed=0)
    assert found.difference.mean == pytest.approx(0.75)
    assert found.p == pytest.approx(0.5)  # differences 1 and 0.5: the two patterns of one sign out of four
    assert [c.corrected for c in corrected({"a": found, "b": found}).values()] == [1.0, 1.0]
    with pytest.raises(ValueError):
        compare(ours, np.full((4, 1), NAN), seed=0)
