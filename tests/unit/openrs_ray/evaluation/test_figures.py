"""The evaluation's figures against enumeration, closed forms and hand values."""

from dataclasses import replace
from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from openrs_ray.evaluation.figures import Samples, figures, majority, majority_interval, one_run_deviation, pass_at_k
from openrs_ray.evaluation.paired import Pair, SignFlips, compare, corrected, holm
from openrs_ray.stats import effective_interval, sampling_interval

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
        interval = sampling_interval(correct)
        assert interval is not None and interval.mean == pytest.approx(correct.mean())
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert sampling_interval(np.ones((5, 1))) is None


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
    found = figures(samples, max_unjudged_share=0.125)
    assert found.average is not None and found.average.mean == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert found.pass_at[1].mean == pytest.approx(found.average.mean)
    assert found.pass_at[2].mean == pytest.approx((1 + 1 / 2) / 2)
    assert found.pass_at[4].mean == 1.0  # the second problem's alone: the first has three judged samples
    assert found.majority is not None and found.majority.mean == 0.5
    assert (found.mean_tokens, found.truncated_share, found.english_share, found.unjudged) == (45, 0.25, 0.75, 1)
    assert found.bounds == (3 / 8, 4 / 8)
    refused = figures(samples, max_unjudged_share=0.124)
    assert (refused.average, refused.sampling, refused.one_run, refused.majority) == (None,) * 4 and not refused.pass_at
    assert (refused.bounds, refused.mean_tokens) == (found.bounds, 45), "what does not depend on verdicts stays"


def test_pass_at_k_is_bounded_by_what_the_unjudged_may_have_been() -> None:
    correct = np.array([[1, 0, NAN, 0], [0, 0, 0, 0], [0, 1, 1, 1]])
    samples = Samples(correct, np.zeros((3, 4), dtype=int), *[np.ones((3, 4))] * 3)
    found = figures(samples).pass_at[2]
    wrong, right = (figures(replace(samples, correct=np.nan_to_num(correct, nan=x))).pass_at[2] for x in (0.0, 1.0))
    assert found.mean == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert wrong.mean < found.mean < right.mean and (found.low, found.high) == (wrong.low, right.high)


def test_a_majority_of_nothing_judged_is_none_and_unjudged_votes_are_bounds() -> None:
    classes = np.array([[0, 0, 1, 1, -1], [2, 2, 0, -1, -1], [-1] * 5, [0, 0, 0, 0, 0], [-1, -1, -1, -1, 3]])
    correct = np.array([[1, 1, 0, 0, NAN], [0, 0, 1, NAN, 0], [NAN] * 5, [1.0] * 5, [NAN, NAN, 0, 0, 0]])
    mine = majority(classes, correct)
    assert mine[[0, 1, 3, 4]] == pytest.approx([1 / 2, 0, 1, 0]) and np.isnan(mine[2])
    found = majority_interval(classes, correct)
    assert found is not None and found.mean == pytest.approx(1.5 / 4)

    def votes_as(row: int) -> list[float]:
        """The problem's result for every way in which the unjudged votes may have been given."""
        unjudged = np.flatnonzero(np.isnan(correct[row]))
        results = []
        for given in product(range(5), repeat=len(unjudged)):  # 0 is the correct answer, 4 is nobody's so far
            own, verdict = classes[row].copy(), correct[row].copy()
            own[unjudged], verdict[unjudged] = given, [float(answer == 0) for answer in given]
            results.append(float(majority(own[None], verdict[None])[0]))
        return results

    ways = [votes_as(row) for row in range(len(classes))]
    low, high = (effective_interval(np.array([end(way) for way in ways]), 5) for end in (min, max))
    assert (found.low, found.high) == pytest.approx((low.low, high.high))
    assert majority_interval(classes[2:3], correct[2:3]) is None


def flips(values: np.ndarray, seed: int = 0, draws: int = 100_000) -> SignFlips:
    return SignFlips.draw(np.asarray(values, dtype=float), np.ones(len(values)), np.random.default_rng(seed), draws)


def test_sign_flips_by_enumeration() -> None:
    values = np.array([0.5, 0.25, -0.25, 0.75, -0.125, 0.5])
    found = flips(values)
    for mean in (0.0, 0.1, 0.25, values.mean(), 0.3, 0.6, -0.2, 2.0):
        patterns = [
            abs(np.dot(signs, values - mean)) >= abs((values - mean).sum()) - 1e-9
            for signs in product((1, -1), repeat=6)
        ]
        assert found.p(mean) == pytest.approx(np.mean(patterns), abs=1e-12), mean
    assert flips(np.zeros(9)).p() == 1.0
    assert flips(np.full(5, 0.1)).p() == pytest.approx(2 / 2**5)
    few = np.array([0.5, 0.25, -0.25, 0.75, 0.5, *[0.0] * 40])
    exact = [abs(np.dot(signs, few[:5])) >= abs(few.sum()) - 1e-9 for signs in product((1, -1), repeat=5)]
    assert flips(few).p() == np.mean(exact), "exact, too, where most problems do not differ"


def test_drawn_sign_flips_agree_with_the_binomial_sign_test() -> None:
    # Differences of equal size: the sum depends on the number of plus signs alone.
    values = np.array([1.0] * 15 + [-1.0] * 5)
    exact = 2 * sum(comb(20, i) for i in range(6)) / 2**20
    assert flips(values, seed=3).p() == pytest.approx(exact, abs=0.002)


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng, alarms = np.random.default_rng(5), 0
    for number in range(400):
        chance = rng.random((30, 1))
        ours, theirs = ((rng.random((30, 4)) < chance).astype(float) for _ in range(2))
        alarms += flips(ours.mean(axis=1) - theirs.mean(axis=1), number, draws=400).p() <= 0.05
    assert 0.02 <= alarms / 400 <= 0.08


def random_pair(rng: np.random.Generator, problems: int, gain: float) -> Pair:
    chance, samples = rng.random((problems, 1)), int(rng.integers(1, 6))
    ours, theirs = ((rng.random((problems, samples)) < chance + g).astype(float) for g in (gain, 0.0))
    if rng.random() < 0.5:
        ours[rng.random(ours.shape) < 0.05] = NAN
    return Pair(ours, theirs, rng.integers(problems // 2, size=problems) if rng.random() < 0.5 else None)


def test_interval_and_p_value_never_disagree() -> None:
    rng, significant = np.random.default_rng(8), 0
    for number in range(150):
        pairs = [random_pair(rng, int(rng.integers(4, 40)), 0.15 * (number % 3)) for _ in range(1 + number % 2)]
        found = compare(pairs, seed=number)
        assert found.difference.low <= found.difference.mean <= found.difference.high
        assert (not found.difference.low <= 0 <= found.difference.high) == (found.p < 0.05), (number, found)
        significant += found.p < 0.05
    assert 20 < significant < 130, "both kinds were tried"


def test_the_interval_of_a_difference_covers_it() -> None:
    rng, covered = np.random.default_rng(9), 0
    for number in range(300):
        theirs = rng.random(30)
        gain = rng.uniform(0, 0.4, size=30)  # mean 0.2
        found = flips(np.clip(theirs + gain + 0.1 * rng.normal(size=30), -9, 9) - theirs, number, draws=1000).interval()
        covered += found.low <= 0.2 <= found.high
    assert 0.92 <= covered / 300 <= 0.98


def test_the_average_is_stratified_by_benchmark() -> None:
    rng = np.random.default_rng(4)
    small, large = random_pair(rng, 20, 0.3), random_pair(rng, 300, 0.0)
    both, alone = compare([small, large]), [compare([pair]) for pair in (small, large)]
    assert both.difference.mean == pytest.approx(np.mean([c.difference.mean for c in alone]))
    # Independent errors add: half of the root of the sum of squares.
    half = [(c.difference.high - c.difference.low) / 2 for c in alone]
    assert (both.difference.high - both.difference.low) / 2 == pytest.approx(np.hypot(*half) / 2, rel=0.1)


def test_copies_of_a_problem_are_flipped_together() -> None:
    rng = np.random.default_rng(6)
    chance = rng.random((12, 1))
    ours, theirs = ((rng.random((12, 4)) < chance + gain).astype(float) for gain in (0.15, 0.0))
    once = compare([Pair(ours, theirs)])
    copies = [np.repeat(side, 8, axis=0) for side in (ours, theirs)]
    together = compare([Pair(*copies, np.repeat(np.arange(12), 8))])
    assert together.p == pytest.approx(once.p, abs=1e-9) and together.difference.low == pytest.approx(
        once.difference.low
    )
    assert compare([Pair(*copies)]).p < together.p / 3, "as independent problems they would prove far more"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_compare_leaves_out_what_only_one_model_has() -> None:
    ours = np.array([[1.0, 1.0], [NAN, NAN], [1.0, 0.0], [0.0, 0.0]])
    theirs = np.array([[0.0], [1.0], [0.0], [NAN]])
    found = compare([Pair(ours, theirs)])
    assert found.difference.mean == pytest.approx(0.75)
    assert found.p == pytest.approx(0.5)  # differences 1 and 0.5: the two patterns of one sign out of four
    # Ours 3 of 8 with all unjudged wrong, 5 with all right; theirs 1 of 4, and 2.
    assert found.bounds == (pytest.approx(3 / 8 - 2 / 4), pytest.approx(5 / 8 - 1 / 4))
    assert compare([Pair(ours[:1], theirs[:1])]).bounds is None
    assert [c.corrected for c in corrected({"a": found, "b": found}).values()] == [1.0, 1.0]
    with pytest.raises(ValueError):
        compare([Pair(ours, np.full((4, 1), NAN))])
