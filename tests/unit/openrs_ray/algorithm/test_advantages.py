"""Advantages against a reference written out one completion at a time."""

import math

import numpy as np
import pytest

from openrs_ray.algorithm.advantages import TrainingSequence, advantages, spread

NAN = float("nan")


def reference_advantages(rewards: list[float], epsilon: float) -> list[float]:
    judged = [r for r in rewards if not math.isnan(r)]
    if len(judged) < 2:
        return [NAN] * len(rewards)
    mean = sum(judged) / len(judged)
    std = math.sqrt(sum((r - mean) ** 2 for r in judged) / (len(judged) - 1))
    return [NAN if math.isnan(r) else (r - mean) / (std + epsilon) for r in rewards]


def test_advantages_equal_the_reference():
    rng = np.random.default_rng(0)
    rewards = rng.choice([0.0, 1.0, 3.0, NAN], size=(200, 6), p=[0.4, 0.2, 0.2, 0.2])
    expected = np.array([reference_advantages(list(row), 1e-4) for row in rewards])
    np.testing.assert_allclose(advantages(rewards, 1e-4), expected, rtol=1e-12, atol=1e-12)


def test_without_the_standard_deviation_an_advantage_is_the_distance_from_the_mean():
    rewards = np.array([[0.0, 3.0, NAN, 3.0], [0.7, 0.7, 0.7, 0.7], [1.0, NAN, NAN, NAN]])
    expected = [[-2.0, 1.0, NAN, 1.0], [0.0] * 4, [NAN] * 4]
    np.testing.assert_allclose(advantages(rewards, 1e-4, divide_by_std=False), expected, rtol=1e-15)


def test_equal_rewards_have_advantage_0_and_no_spread_whatever_their_mean_rounds_to():
    rewards = np.array([[0.7] * 6, [0.1] * 5 + [np.nan], [0.7] * 5 + [0.3], [np.nan] * 6])
    assert np.abs(rewards[0] - rewards[0].mean()).max() > 0, "the mean must round, or this tests nothing"
    values = advantages(rewards, 0.0)
    assert (values[0] == 0).all() and (values[1, :5] == 0).all() and np.isnan(values[3]).all()
    assert np.isclose(np.abs(values[2]).sum(), 5 * 0.40825 + 2.04124, atol=1e-4)
    assert spread(rewards).tolist() == [False, False, True, False]


def test_advantages_worked_by_hand():
    # mean 1, std sqrt((1 + 1) / 1) = sqrt 2
    np.testing.assert_allclose(advantages(np.array([[0.0, 2.0]]), 0.0), [[-1 / math.sqrt(2), 1 / math.sqrt(2)]])
    # A timeout is left out: the other two are as if it had never been sampled.
    np.testing.assert_allclose(
        advantages(np.array([[0.0, NAN, 2.0]]), 0.0), [[-1 / math.sqrt(2), NAN, 1 / math.sqrt(2)]]
    )
    np.testing.assert_array_equal(advantages(np.array([[1.0, 1.0, 1.0]]), 0.0), [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(advantages(np.array([[1.0, NAN, NAN]]), 1e-4), [[NAN, NAN, NAN]])


def test_a_sequence_that_cannot_be_learnt_from_is_refused():
    tokens, logprobs = np.array([1, 2], dtype=np.int32), np.zeros(2, dtype=np.float32)
    with pytest.raises(ValueError, match="left out"):
        TrainingSequence(tokens, tokens, logprobs, NAN)
    with pytest.raises(ValueError, match="3 log-probabilities for 2 tokens"):
        TrainingSequence(tokens, tokens, np.zeros(3, dtype=np.float32), 1.0)
    with pytest.raises(ValueError, match="at least one prompt token"):
        TrainingSequence(tokens[:0], tokens, logprobs, 1.0)
