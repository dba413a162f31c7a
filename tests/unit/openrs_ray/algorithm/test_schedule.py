"""The learning rate against its closed form."""

import math

import pytest

from openrs_ray.algorithm.schedule import learning_rate
from openrs_ray.config.learner import Learner


def test_warm_up_then_cosine():
    learner = Learner(learning_rate=2.0, schedule="cosine", warmup_share=0.1, final_share=0.1)
    rates = [learning_rate(step, 50, learner) for step in range(1, 51)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    for step in range(6, 51):
        p = (step - 5) / 45
        assert rates[step - 1] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * p)) / 2))
    assert rates[-1] == pytest.approx(0.2)


def test_linear_and_constant():
    linear = Learner(learning_rate=1.0, schedule="linear", warmup_share=0.0, final_share=0.0)
    assert [learning_rate(step, 4, linear) for step in (1, 2, 3, 4)] == pytest.approx([0.75, 0.5, 0.25, 0.0])
    constant = Learner(learning_rate=1.0, schedule="constant", warmup_share=0.5, final_share=0.1)
    assert [learning_rate(step, 4, constant) for step in (1, 2, 3, 4)] == pytest.approx([0.5, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("steps", [1, 2, 3, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.07, 0.5, 1.0])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_every_step_has_a_rate_between_final_and_peak(steps: int, warmup: float, schedule: str):
    learner = Learner(learning_rate=1.0, schedule=schedule, warmup_share=warmup, final_share=0.1)
    rates = [learning_rate(step, steps, learner) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    warm_steps = {0.0: 0, 0.07: math.ceil(0.07 * steps - 1e-6), 0.5: math.ceil(steps / 2), 1.0: steps}[warmup]
    assert rates[:warm_steps] == sorted(rates[:warm_steps])
    assert rates[max(warm_steps - 1, 0) :] == sorted(rates[max(warm_steps - 1, 0) :], reverse=True)
    assert warm_steps == 0 or rates[warm_steps - 1] == 1
