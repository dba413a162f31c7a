"""Advantages and loss against references written out one token at a time in float64."""

import math

import numpy as np
import pytest
import torch

from openrs_ray.config import Loss
from openrs_ray.grpo import METRICS, LossInput, TrainingSequence, advantages, clipped_loss, spread

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


def reference_loss(
    logp: list[float], old: list[float], adv: list[float], ref: list[float] | None, epsilon: float, beta: float
) -> tuple[float, list[float], dict[str, float]]:
    """Total, its derivative by each log-probability (worked out on paper, not by autograd), and the sums."""
    total, slopes = 0.0, []
    sums = dict.fromkeys(METRICS, 0.0)
    for i, (now, then, a) in enumerate(zip(logp, old, adv, strict=True)):
        ratio = math.exp(now - then)
        binds = (a > 0 and ratio > 1 + epsilon) or (a < 0 and ratio < 1 - epsilon)
        bound = 1 + epsilon if a > 0 else 1 - epsilon
        total += -(bound if binds else ratio) * a
        slope = 0.0 if binds else -ratio * a
        if ref is not None:
            kl = math.exp(ref[i] - now) - (ref[i] - now) - 1
            total += beta * kl
            slope += beta * (1 - math.exp(ref[i] - now))
            sums["kl"] += kl
        slopes.append(slope)
        sums["clipped"] += binds
        sums["mismatch_kl"] += ratio - (now - then) - 1
        sums["entropy"] += -now
        sums["ratio"] += ratio
        sums["tokens"] += 1
    return total, slopes, sums


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_gradient_and_metrics_equal_the_reference(beta: float, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 300, generator=generator, dtype=torch.float64)
    old = values[0] - 3
    logp, ref, adv = old + 0.4 * values[1], old + 0.3 * values[2], values[3]
    ref = ref if beta else None
    expected, slopes, sums = reference_loss(
        logp.tolist(), old.tolist(), adv.tolist(), ref.tolist() if ref is not None else None, 0.2, beta
    )
    assert 30 < sums["clipped"] < 270  # both cases are really met
    leaf = logp.to(dtype).requires_grad_()
    batch = LossInput(leaf, old.to(dtype), adv.to(dtype), ref.to(dtype) if ref is not None else None)
    output = clipped_loss(batch, Loss(clip_epsilon=0.2, kl_beta=beta))
    output.total.backward()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert output.total.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    torch.testing.assert_close(
        leaf.grad.double(), torch.tensor(slopes, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )
    for name, value in zip(METRICS, output.sums.tolist(), strict=True):
        assert value == pytest.approx(sums[name], rel=10 * tolerance, abs=10 * tolerance), name


def test_on_policy_gradient_is_the_advantage_and_nothing_is_clipped():
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    output = clipped_loss(LossInput(logp, logp.detach(), torch.tensor([1.0, -2.0, 0.0])), Loss())
    output.total.backward()
    assert logp.grad.tolist() == [-1.0, 2.0, 0.0]
    measured = dict(zip(METRICS, output.sums.tolist(), strict=True))
    assert measured == {"clipped": 0, "kl": 0, "mismatch_kl": 0, "entropy": 6, "ratio": 3, "tokens": 3}


def test_a_sequence_that_cannot_be_learnt_from_is_refused():
    tokens, logprobs = np.array([1, 2], dtype=np.int32), np.zeros(2, dtype=np.float32)
    with pytest.raises(ValueError, match="left out"):
        TrainingSequence(tokens, tokens, logprobs, NAN)
    with pytest.raises(ValueError, match="3 log-probabilities for 2 tokens"):
        TrainingSequence(tokens, tokens, np.zeros(3, dtype=np.float32), 1.0)
    with pytest.raises(ValueError, match="at least one prompt token"):
        TrainingSequence(tokens[:0], tokens, logprobs, 1.0)
