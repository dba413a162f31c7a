"""The sequential comparison: its levels by hand, its errors and its power in simulated evaluations."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest

from openrs_ray.evaluation.paired import Pair, SignFlips, compare
from openrs_ray.evaluation.sequential import Look, Plan, chance_left, decided, look, outcome_text, undecidable

NAN = np.nan


def test_looks_double_and_end_with_all_samples() -> None:
    assert Plan(16).looks == (1, 2, 4, 8, 16)
    assert Plan(24).looks == (1, 2, 4, 8, 16, 24)
    assert Plan(2).looks == (1, 2)


@pytest.mark.parametrize("samples", [2, 3, 16, 24, 64])
@pytest.mark.parametrize("benchmarks", [1, 5])
def test_the_levels_of_all_looks_and_benchmarks_add_up_to_five_percent(samples: int, benchmarks: int) -> None:
    plan = Plan(samples, comparisons=benchmarks)
    levels = [plan.level(number) for number in plan.looks]
    assert benchmarks * math.fsum(levels) == pytest.approx(0.05, rel=1e-12)
    assert all(earlier < later for earlier, later in pairwise(levels)) or samples == 24
    assert Plan(16).level(4) == pytest.approx(0.05 * (16 - 4) / 256)


def test_the_difference_to_find_is_what_all_samples_show_at_the_last_level() -> None:
    quantile = NormalDist().inv_cdf
    reach, fewer = quantile(1 - 0.0375 / 2) + quantile(0.9), quantile(1 - 0.0375 / 2) ** 2 / 2
    assert Plan(16, power=0.9).difference(30) == pytest.approx(reach * math.sqrt(0.25 / 16 / (30 - fewer)))
    assert Plan(16, asked=0.03).difference(30) == 0.03


def answers(rng: np.random.Generator, chance: np.ndarray, samples: int) -> np.ndarray:
    """0 or 1 [problems, samples]"""
    return (rng.random((len(chance), samples)) < chance[:, None]).astype(float)


def evaluated(ours: np.ndarray, theirs: np.ndarray, plan: Plan) -> list[Look]:
    looks: list[Look] = []
    for samples in plan.looks:
        if not decided(looks):
            looks.append(look(Pair(ours[:, :samples], theirs[:, :samples]), plan))
    return looks


def test_a_look_is_the_paired_test_at_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_fewer(monkeypatch, 2000)
    rng = np.random.default_rng(0)
    plan, seen = Plan(8), set()
    for number in range(60):
        chance = rng.uniform(0.1, 0.7, 40)
        pair = Pair(answers(rng, chance + 0.1 * (number % 4), 4), answers(rng, chance, 4))
        found, test = look(pair, plan), compare([pair], 0, 1 - plan.level(4))
        assert (found.difference, found.p, found.level) == (test.difference, test.p, plan.level(4))
        shown = found.outcome in ("better", "worse")
        assert shown == (found.p < found.level) == (found.corrected < 0.05)
        assert shown == (not found.difference.low <= 0 <= found.difference.high)
        seen.add(found.outcome)
    assert seen >= {"better", "open"}


def test_better_and_worse_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    good, bad = answers(rng, np.full(60, 0.8), 8), answers(rng, np.full(60, 0.3), 8)
    assert [one.outcome for one in evaluated(good, bad, Plan(8))][-1] == "better"
    assert [one.outcome for one in evaluated(bad, good, Plan(8))][-1] == "worse"


def test_models_that_answer_alike_are_hopeless_only_when_few_samples_are_left() -> None:
    same = answers(np.random.default_rng(2), np.full(60, 0.5), 16)
    looks = evaluated(same, same, Plan(16))
    assert [one.outcome for one in looks] == ["open"] * 3 + ["hopeless"] and looks[-1].samples == 8
    assert [one.chance for one in looks] == sorted((one.chance for one in looks), key=lambda each: -(each or 0))


def test_no_difference_of_a_size_is_said_only_where_that_size_would_show() -> None:
    same = answers(np.random.default_rng(3), np.full(400, 0.5), 8)
    last = evaluated(same, same, Plan(8, asked=0.1))[-1]
    assert last.outcome == "smaller" and last.samples < 8
    assert Plan(8, asked=0.1).smallest(400, last.samples) <= 0.1 < Plan(8, asked=0.1).smallest(400, last.samples // 2)
    few = look(Pair(same[:12, :2], same[:12, :2]), Plan(2, asked=0.1))
    assert few.difference.high < 0.1 and few.outcome == "not shown", "twelve problems could not show 10 points"


def test_the_last_look_always_ends_it() -> None:
    rng = np.random.default_rng(4)
    ends = [
        evaluated(*(answers(rng, np.full(12, 0.5), 4) for _ in range(2)), Plan(4, asked=0.9))[-1] for _ in range(20)
    ]
    assert all(end.outcome != "open" for end in ends) and all(end.chance is None for end in ends if end.samples == 4)
    assert undecidable(2, Plan(4)).outcome == "open" and undecidable(4, Plan(4)).outcome == "not tested"
    none = undecidable(2, Plan(4))
    assert none.difference is none.p is none.corrected is None, "no figure is made up"
    said = outcome_text(undecidable(4, Plan(4)), 0.1, Plan(4))
    assert said == "after 4 of 4 samples: not tested, too many could not be judged"


def test_the_chance_left_is_that_of_simulated_remainders() -> None:
    """Against the second half of an evaluation sampled 40,000 times, given the first; the true gain is the asked one."""
    rng, asked, variance, plan = np.random.default_rng(5), 0.05, 0.03**2, Plan(16)
    bound = NormalDist().inv_cdf(1 - plan.level(16) / 2) * 0.03 / math.sqrt(2)
    for mean in (-0.03, 0.0, 0.03, 0.06):
        whole = (mean + asked + 0.03 * rng.normal(size=40_000)) / 2
        assert chance_left(mean, asked, 8, plan, variance) == pytest.approx((whole > bound).mean(), abs=0.01), mean
    assert chance_left(0.0, asked, 1, plan, 8 * variance) > chance_left(0.0, asked, 8, plan, variance)


def test_what_is_decided_reads_as_a_sentence() -> None:
    found = look(Pair(np.ones((30, 4)), np.zeros((30, 4))), Plan(16))
    assert outcome_text(found, 0.05, Plan(16)) == "after 4 of 16 samples: better"
    hopeless = evaluated(*[answers(np.random.default_rng(6), np.full(60, 0.5), 16)] * 2, Plan(16))[-1]
    text = outcome_text(hopeless, 0.05, Plan(16))
    assert text.startswith("after 8 of 16 samples: hopeless, all would show a gain of 5.0 points in ")


Chances = tuple[np.ndarray, np.ndarray]


def alike(rng: np.random.Generator, problems: int) -> Chances:
    chance = rng.beta(0.6, 1.0, problems)
    return chance, chance


def other_strengths(rng: np.random.Generator, problems: int) -> Chances:
    """Each model is better at some problems, and neither on average."""
    return rng.beta(0.6, 1.0, problems), rng.beta(0.6, 1.0, problems)


def one_sided_gains(rng: np.random.Generator, problems: int) -> Chances:
    """A large gain at one problem of ten, a small loss at the others: the test's symmetry does not hold."""
    chance = rng.uniform(0.1, 0.5, problems)
    return chance + np.where(rng.random(problems) < 0.1, 0.45, -0.05), chance


def draw_fewer(monkeypatch: pytest.MonkeyPatch, draws: int) -> None:
    """Sign patterns for each test, whose least p must stay below the least level."""
    monkeypatch.setattr(SignFlips.draw.__func__, "__defaults__", (draws,))  # type: ignore[attr-defined]


Models = Callable[[np.random.Generator, int], Chances]


def false_alarms(
    monkeypatch: pytest.MonkeyPatch, models: Sequence[Models], problems: int, plan: Plan, trials: int, draws: int
) -> tuple[float, float]:
    """Shares of evaluations with a difference shown, and with an interval at any look that leaves out the true one, 0."""
    draw_fewer(monkeypatch, draws)
    rng, alarms, missed = np.random.default_rng(7), 0, 0
    for number in range(trials):
        ours, theirs = models[number % len(models)](rng, problems)
        both = answers(rng, ours, plan.samples), answers(rng, theirs, plan.samples)
        looks = [look(Pair(*(side[:, :samples] for side in both)), plan, number) for samples in plan.looks]
        wrong = [not one.difference.low <= 0 <= one.difference.high for one in looks]
        missed += any(wrong)
        first = next(one for one in looks if one.outcome != "open")
        alarms += first.outcome in ("better", "worse")
    return alarms / trials, missed / trials


def test_false_alarms_over_all_looks_are_rarer_than_five_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 600 evaluations, looked at four times; a test at 5 % at each look would give about 12 %."""
    models: list[Models] = [alike, other_strengths, one_sided_gains]
    alarms, missed = false_alarms(monkeypatch, models, 40, Plan(8), 600, 2000)
    assert alarms <= missed <= 0.05 and missed > 0.015, (alarms, missed)


def test_looking_at_five_percent_each_time_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "level", lambda plan, samples: 0.05)
    _, missed = false_alarms(monkeypatch, [alike, other_strengths], 40, Plan(8), 300, 500)
    assert missed > 0.08


@pytest.mark.nightly
@pytest.mark.parametrize("problems", [20, 30, 100])
@pytest.mark.parametrize("model", [alike, other_strengths, one_sided_gains])
def test_false_alarms_of_each_kind(monkeypatch: pytest.MonkeyPatch, model: Models, problems: int) -> None:
    alarms, missed = false_alarms(monkeypatch, [model], problems, Plan(16), 3000, 10_000)
    assert alarms <= missed <= 0.055, (alarms, missed)


def test_a_gain_of_the_asked_size_is_shown_as_often_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """With variances as planned (chances of a half where there is room), stopping included; and completions are saved."""
    draw_fewer(monkeypatch, 2000)
    rng, plan, found, taken = np.random.default_rng(8), Plan(8), [], []
    asked = plan.difference(40)
    for _ in range(250):
        chance = 0.5 - asked / 2 + rng.choice([-0.35, 0.35], 40)  # variance within of 0.25 - 0.35^2
        theirs = np.clip(chance, 0.02, 0.98)
        looks = evaluated(answers(rng, theirs + asked, 8), answers(rng, theirs, 8), plan)
        found.append(looks[-1].outcome == "better")
        taken.append(looks[-1].samples)
    assert 0.74 <= np.mean(found) <= 0.9 and np.mean(taken) < 7.5, (np.mean(found), np.mean(taken))
