"""What noise alone does to the guard's rules, against figures of drawn problems and completions."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import make_config

from openrs_ray.guard.noise import departure_by_noise
from openrs_ray.guard.watch import Watch

STEPS = 150


def accuracies(rng: np.random.Generator, problems: int, samples: int, means: Sequence[float]) -> np.ndarray:
    """Accuracy of each step: problems differ much in their difficulty, completions of a problem less."""
    rates = [rng.beta(1.2 * mean, 1.2 * (1 - mean), problems) for mean in means]
    return np.array([rng.binomial(samples, rate).mean() / samples for rate in rates])


def alarms(figures: Sequence[float]) -> tuple[int | None, int | None]:
    """Step of the first alarm of the rule `accuracy`, and of the first rollback."""
    watch = Watch(make_config(Path("/nowhere"), guard={"action": "roll_back"}))
    first = back = None
    for step, accuracy in enumerate(figures, 1):
        for alarm in watch.step({"step": step, "accuracy": float(accuracy)}):
            first = first or step
            back = back or (step if alarm.in_a_row >= 5 else None)
    return first, back


@pytest.mark.parametrize(("problems", "samples"), [(4, 4), (8, 8), (12, 6), (32, 8)])
def test_healthy_runs_raise_hardly_an_alarm_however_small_their_steps(problems: int, samples: int) -> None:
    """Without regard to noise 92 % of the runs with 8 x 8 completions a step would have gone back."""
    rng = np.random.default_rng(problems)
    rising = np.linspace(0.3, 0.8, STEPS)
    runs = [alarms(accuracies(rng, problems, samples, means)) for means in [rising, np.full(STEPS, 0.6)] * 30]
    assert sum(first is not None for first, _ in runs) <= 4 and sum(back is not None for _, back in runs) <= 1


@pytest.mark.parametrize(("problems", "samples", "least"), [(8, 8, 0.05), (32, 8, 0.3)])
def test_a_collapse_is_seen_within_a_window_and_its_patience(problems: int, samples: int, least: float) -> None:
    """Accuracy rises for ten steps, falls over eight, and stays there; 32 problems a step show a smaller fall."""
    rng = np.random.default_rng(7)
    means = [*np.linspace(0.5, 0.75, 10), *np.linspace(0.75, least, 8), *[least] * 20]
    backs = [alarms(accuracies(rng, problems, samples, means))[1] for _ in range(40)]
    assert all(back is not None and 10 < back <= 30 for back in backs)


def test_the_bound_is_that_of_normal_noise_whatever_the_trend() -> None:
    """1.25 sqrt(2 ln n) standard deviations of the difference between a window of five steps and ten first ones."""
    rng, steps = np.random.default_rng(1), 400
    noise = rng.normal(0.0, 0.1, steps)
    expected = 1.25 * np.sqrt(2 * np.log(steps)) * 0.1 * np.sqrt(1 / 5 + 1 / 10)
    for trend in (0.0, 0.003):
        found = departure_by_noise([*(noise + trend * np.arange(steps))], 5, 10)
        assert found == pytest.approx(expected, rel=0.1)
    assert departure_by_noise([*noise], 5, None) == pytest.approx(expected * 2 / np.sqrt(5) / np.sqrt(0.3), rel=0.1)


def test_the_best_of_many_windows_lies_within_the_bound() -> None:
    """Means of 5 of 500 independent figures of variance 1, 200 times: best less any later one."""
    rng = np.random.default_rng(2)
    beyond = 0
    for _ in range(200):
        figures = rng.standard_normal(500)
        windows = np.convolve(figures, np.ones(5) / 5, "valid")
        fall = (np.maximum.accumulate(windows) - windows).max()
        beyond += fall > departure_by_noise([*figures], 5, None)
    assert beyond <= 2


def test_constant_figures_have_no_noise() -> None:
    assert departure_by_noise([*itertools.repeat(0.4, 20)], 5, 5) == 0
