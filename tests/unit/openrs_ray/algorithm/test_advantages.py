"""Advantages against a reference written out one completion at a time."""

import math
import statistics
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from several_updates import make_groups

from openrs_ray.algorithm.advantages import TrainingSequence, advantages, spread, taught, without_truncated
from openrs_ray.config.loss import Advantage

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


def by_definition(rewards: np.ndarray, kind: str, epsilon: float) -> np.ndarray:
    """One completion at a time, as the papers write it."""
    result = np.full(rewards.shape, NAN)
    groups = [[float(r) for r in row if not math.isnan(r)] for row in rewards]
    centred = [r - sum(group) / len(group) for group in groups if len(group) >= 2 for r in group]
    for place in np.ndindex(rewards.shape):
        group, own = groups[place[0]], float(rewards[place])
        if len(group) < 2 or math.isnan(own):
            continue
        if kind == "leave_one_out":  # arXiv 2402.14740
            others = group.copy()
            others.remove(own)
            result[place] = own - sum(others) / len(others)
        elif kind == "batch_std":  # arXiv 2501.03262
            result[place] = (own - sum(group) / len(group)) / (statistics.stdev(centred) + epsilon)
        else:
            result[place] = own - sum(group) / len(group)
    return result


@pytest.mark.parametrize("kind", ["group_mean", "leave_one_out", "batch_std"])
def test_other_baselines_equal_their_definition(kind: Advantage):
    rewards = np.random.default_rng(1).choice([0.0, 1.0, 3.0, NAN], size=(200, 4), p=[0.4, 0.2, 0.1, 0.3])
    assert {0, 1, 2, 3, 4} == set((~np.isnan(rewards)).sum(axis=1)), "all numbers of judged completions are met"
    np.testing.assert_allclose(
        advantages(rewards, 1e-2, kind), by_definition(rewards, kind, 1e-2), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kind", get_args(Advantage))
def test_whatever_the_baseline_a_step_without_spread_has_advantage_0(kind: Advantage):
    rewards = np.array([[0.7] * 6, [0.1] * 5 + [NAN], [NAN] * 6])
    np.testing.assert_array_equal(advantages(rewards, 0.0, kind), [[0.0] * 6, [0.0] * 5 + [NAN], [NAN] * 6])


def test_leaving_one_out_makes_the_mean_advantage_that_of_the_groups_without_bias():
    """E[A grad log pi] over all pairs of draws from a policy of three answers: the exact gradient, which r - mean halves."""
    generator = np.random.default_rng(0)
    chances, rewards = generator.dirichlet(np.ones(3)), generator.normal(size=3)
    exact = chances * (rewards - chances @ rewards)
    for kind, factor in (("leave_one_out", 1.0), ("group_mean", 0.5)):
        found = np.zeros(3)
        for one, other in np.ndindex(3, 3):
            drawn = advantages(rewards[[[one, other]]], 0.0, kind)[0]
            slopes = np.eye(3)[[one, other]] - chances
            found += chances[one] * chances[other] * (drawn @ slopes) / 2
        np.testing.assert_allclose(found, factor * exact, atol=1e-15)


def test_truncated_completions_count_in_the_mean_and_have_no_advantage():
    groups = make_groups(1)[:2]
    cut = replace(groups[0].rollouts[1], finish_reason="length")
    groups[0] = replace(groups[0], rollouts=(groups[0].rollouts[0], cut, *groups[0].rollouts[2:]))
    values = advantages(np.stack([group.rewards() for group in groups]), 1e-4)
    left = without_truncated(values, groups)
    assert np.isnan(left[0, 1]) and np.isnan(left).sum() == 1
    np.testing.assert_array_equal(left[~np.isnan(left)], values[~np.isnan(left)])


def test_a_teacher_acts_on_all_completions_but_those_without_a_usable_token():
    (group, *_) = make_groups(1)
    untold = np.full(len(group.rollouts[2].logprobs), NAN)
    group = replace(
        group, rollouts=(*group.rollouts[:2], replace(group.rollouts[2], logprobs=untold), group.rollouts[3])
    )
    np.testing.assert_array_equal(taught(np.array([[0.5, NAN, NAN, -0.5]]), [group]), [[0.5, 0.0, NAN, -0.5]])


def test_without_the_standard_deviation_an_advantage_is_the_distance_from_the_mean():
    rewards = np.array([[0.0, 3.0, NAN, 3.0], [0.7, 0.7, 0.7, 0.7], [1.0, NAN, NAN, NAN]])
    expected = [[-2.0, 1.0, NAN, 1.0], [0.0] * 4, [NAN] * 4]
    np.testing.assert_allclose(advantages(rewards, 1e-4, "group_mean"), expected, rtol=1e-15)


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
