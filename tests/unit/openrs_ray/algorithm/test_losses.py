"""Losses and corrections against formulas written out in float64, sequence by sequence."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pages import code_below
from places import ROOT
from pydantic import ValidationError
from torch import Tensor

from openrs_ray.algorithm.losses import METRICS, LossInput, LossOutput, policy_loss
from openrs_ray.config.loss import Loss

KINDS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "tis", "sapo")
CAPPED = ("cispo", "tis")
BY_SEQUENCE = ("gspo", "sapo")
"""Kinds that divide each completion by its length."""
CORRECTIONS = ("none", "truncated", "sequence_mask", "token_mask")
PAIRS = [
    (kind, correction)
    for kind in KINDS
    for correction in CORRECTIONS
    if not (kind in (*CAPPED, "sapo") and correction == "truncated")
]


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
        sums["ratio_squared"] += ratio**2
        sums["tokens"] += 1
    sums["sequences"] = 2
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
    batch = LossInput(leaf, old.to(dtype), adv.to(dtype), (120, 180), ref.to(dtype) if ref is not None else None)
    output = policy_loss(batch, Loss(clip_epsilon=0.2, kl_beta=beta))
    output.total.backward()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert output.total.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    torch.testing.assert_close(
        leaf.grad.double(), torch.tensor(slopes, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )
    assert tuple(output.sums) == METRICS and {value.dtype for value in output.sums.values()} == {torch.float64}
    for name, value in named(output).items():
        assert value == pytest.approx(sums[name], rel=10 * tolerance, abs=10 * tolerance), name


def test_on_policy_gradient_is_the_advantage_and_nothing_is_clipped():
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    output = policy_loss(LossInput(logp, logp.detach(), torch.tensor([1.0, -2.0, 0.0]), (2, 1)), Loss())
    output.total.backward()
    assert logp.grad.tolist() == [-1.0, 2.0, 0.0]
    measured = named(output)
    assert measured == {
        "teacher_kl": 0,
        "top_share": 0,
        "clipped": 0,
        "kl": 0,
        "mismatch_kl": 0,
        "entropy": 6,
        "ratio": 3,
        "tokens": 3,
        "ratio_squared": 3,
        "truncated": 0,
        "masked_tokens": 0,
        "masked_sequences": 0,
        "sequences": 2,
    }


Parts = list[tuple[Tensor, Tensor, float]]
"""Of each sequence: log-probabilities (leaves), those of the sampler, advantage."""


def make_parts(seed: int = 0) -> Parts:
    """40 sequences whose ratios are far from 1, some as a whole, and some of whose tokens only."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parts = []
    for i in range(40):
        old = random(1 + i) - 3
        logp = old + 0.5 * random(1 + i) + 0.6 * random(1)
        parts.append((logp.requires_grad_(), old, float(random(1))))
    return parts


def named(output: LossOutput) -> dict[str, float]:
    return {name: value.item() for name, value in output.sums.items()}


def loss_of(parts: Parts, loss: Loss) -> LossOutput:
    return policy_loss(
        LossInput(
            logprobs=torch.cat([logp for logp, _, _ in parts]),
            behaviour_logprobs=torch.cat([old for _, old, _ in parts]),
            advantages=torch.cat([torch.full_like(old, advantage) for _, old, advantage in parts]),
            lengths=tuple(len(old) for _, old, _ in parts),
        ),
        loss,
    )


def gradient(total: Tensor, parts: Parts) -> Tensor:
    return torch.cat(torch.autograd.grad(total, [logp for logp, _, _ in parts], retain_graph=True))


def ppo(log_ratio: Tensor, advantage: float, low: float, high: float, cap: float) -> Tensor:
    """min(r A, clip(r) A); above the cap, the policy gradient with the constant weight `cap`."""
    ratio = log_ratio.exp()
    if ratio > cap:
        weight = cap * (1 + log_ratio - log_ratio.detach())
        return torch.min(weight * advantage, torch.tensor(min(max(cap, low), high) * advantage, dtype=torch.float64))
    return torch.min(ratio * advantage, ratio.clamp(low, high) * advantage)


def soft(log_ratio: Tensor, advantage: float) -> Tensor:
    """The gate of SAPO, with the logistic function as a hyperbolic tangent."""
    temperature = 1.5 if advantage > 0 else 2.5
    return 2 / temperature * (1 + torch.tanh(temperature / 2 * (log_ratio.exp() - 1))) * advantage


def expected(kind: str, correction: str, parts: Parts) -> Iterator[Tensor]:
    """The loss of each sequence, as the papers write it, summed over its tokens."""
    low, high = {"dapo": (0.8, 1.28), "gspo": (0.7, 1.4)}.get(kind, (0.8, 1.2))
    cap = 2.0 if correction == "truncated" else math.inf
    for logp, old, advantage in parts:
        difference = logp - old
        if correction == "sequence_mask" and not 1 / 1.5 <= difference.mean().exp() <= 1.5:
            yield 0 * logp.sum()
        elif (
            kind == "gspo" and correction != "token_mask"
        ):  # 1/G sum of min(s A, clip(s) A), the 1/G being the learner's
            yield -ppo(difference.mean(), advantage, low, high, cap)
        else:
            kept = [correction != "token_mask" or 0.6 <= d.exp().item() <= 1.7 for d in difference]
            if (
                kind == "gspo"
            ):  # 1/G sum of min(s A, clip(s) A), the 1/G being the learner's; of s each kept token has a share
                shares = [
                    ppo(difference.mean().detach() + d - d.detach(), advantage, low, high, cap) for d in difference
                ]
            elif kind == "sapo":
                shares = [soft(d, advantage) for d in difference]
            elif kind in CAPPED:
                shares = [min(d.exp().item(), 1.7) * advantage * p for d, p in zip(difference, logp, strict=True)]
            else:
                shares = [ppo(d, advantage, low, high, cap) for d in difference]
            total = sum((share for share, keep in zip(shares, kept, strict=True) if keep), 0 * logp.sum())
            yield -total / (len(logp) if kind in BY_SEQUENCE else 1)


def settings(kind: str, correction: str) -> Loss:
    own = {"gspo": {"clip_epsilon": 0.3, "clip_epsilon_high": 0.4}, "cispo": {"clip_epsilon_high": 0.7}}
    own |= {"tis": own["cispo"], "sapo": {"gate_temperature": 1.5, "gate_temperature_negative": 2.5}}
    masks = {"mask_ratio": 1.5, "token_mask_low": 0.6, "token_mask_high": 1.7}
    return Loss(kind=kind, correction=correction, **masks, **own.get(kind, {}))


@pytest.mark.parametrize(("kind", "correction"), PAIRS)
def test_loss_and_gradient_are_those_of_the_paper(kind: str, correction: str):
    parts = make_parts()
    output = loss_of(parts, settings(kind, correction))
    reference = sum(expected(kind, correction, parts))
    assert output.total.item() == pytest.approx(reference.item(), rel=1e-12)
    torch.testing.assert_close(gradient(output.total, parts), gradient(reference, parts), rtol=1e-11, atol=1e-12)

    # Everything that could differ is really met.
    sums = named(output)
    assert 0.1 < sums["clipped"] / sums["tokens"] < 0.9 or (kind == "sapo" and sums["clipped"] == 0)
    assert (sums["truncated"] > 20) == (correction == "truncated" or kind in CAPPED)
    assert (5 < sums["masked_sequences"] < 35) == (correction == "sequence_mask")
    assert (0.05 < sums["masked_tokens"] / sums["tokens"] < 0.9) == correction.endswith("mask")
    if correction != "none":
        plain = loss_of(parts, settings(kind, "none"))
        assert (gradient(plain.total, parts) - gradient(output.total, parts)).abs().max() > 0.01


def test_published_grpo_is_the_mean_over_sequences_of_token_means():
    parts = make_parts()
    output = loss_of(parts, Loss(normalization="sequences"))
    losses = expected("grpo", "none", parts)
    reference = sum(loss / len(old) for loss, (_, old, _) in zip(losses, parts, strict=True))
    torch.testing.assert_close(gradient(output.total, parts), gradient(reference, parts), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("correction", ["sequence_mask", "token_mask"])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_gradients_of_any_split_add_up(kind: str, correction: str):
    parts = make_parts()
    loss = settings(kind, correction)
    whole = loss_of(parts, loss)
    for cuts in ([0, 40], [0, 1, 2, 40], [0, 13, 27, 33, 40], list(range(41))):
        outputs = [loss_of(parts[a:b], loss) for a, b in pairwise(cuts)]
        sums = {name: sum(output.sums[name] for output in outputs) for name in METRICS}
        torch.testing.assert_close(sums, whole.sums, rtol=1e-12, atol=0)
        total = sum(o.total for o in outputs)
        torch.testing.assert_close(gradient(total, parts), gradient(whole.total, parts), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("kind", "correction"), PAIRS)
def test_at_ratio_1_every_loss_has_the_policy_gradient_and_corrections_do_nothing(kind: str, correction: str):
    parts = [(old.clone().requires_grad_(), old, advantage) for _, old, advantage in make_parts()]
    policy_gradient = [torch.full_like(old, -advantage) for _, old, advantage in parts]
    if kind in BY_SEQUENCE:
        policy_gradient = [slope / len(slope) for slope in policy_gradient]
    output = loss_of(parts, Loss(kind=kind, correction=correction))
    torch.testing.assert_close(gradient(output.total, parts), torch.cat(policy_gradient), rtol=1e-15, atol=0)
    sums = named(output)
    assert sums["clipped"] == sums["truncated"] == sums["masked_sequences"] == sums["masked_tokens"] == 0
    assert sums["ratio"] ** 2 == sums["tokens"] * sums["ratio_squared"]


@pytest.mark.parametrize(("kind", "correction"), PAIRS)
def test_within_the_bounds_every_loss_is_the_exact_gradient_under_the_policy(kind: str, correction: str):
    """Over all answers of one token, in proportion to the sampler's probabilities: d/dlogits of E_policy[A]."""
    generator = torch.Generator().manual_seed(3)
    logits, sampler, advantage = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    behaviour = sampler.log_softmax(0)
    batch = LossInput(logits.log_softmax(0), behaviour, behaviour.exp() * advantage, (1,) * 8)
    wide = {"clip_epsilon": 0.99, "clip_epsilon_high": 50.0, "correction_cap": 100.0, "mask_ratio": 100.0}
    wide |= {
        "token_mask_low": 0.01,
        "token_mask_high": 100.0,
        "gate_temperature": 1e-8,
        "gate_temperature_negative": 1e-8,
    }
    total = policy_loss(batch, Loss(kind=kind, correction=correction, **wide)).total
    value = (logits.softmax(0) * advantage).sum()
    (got,), (exact,) = torch.autograd.grad(-total, logits), torch.autograd.grad(value, logits)
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-14)
    (stale,) = torch.autograd.grad((behaviour.exp() * advantage * logits.log_softmax(0)).sum(), logits)
    assert (stale - exact).abs().max() > 0.05  # without the weights it would be another


BY_HAND: dict[str, tuple[dict, list[float], float, float, list[float]]] = {
    # settings, ratios, advantage -> loss, gradient; one sequence of two tokens, log-probabilities -1 and -2
    "grpo": ({}, [1.5, 0.5], 2.0, -(1.2 * 2 + 0.5 * 2), [0.0, -0.5 * 2]),
    "dr_grpo": ({"kind": "dr_grpo"}, [1.5, 0.5], 2.0, -(1.2 * 2 + 0.5 * 2), [0.0, -0.5 * 2]),
    "grpo, lower": ({}, [1.5, 0.5], -2.0, 1.5 * 2 + 0.8 * 2, [1.5 * 2, 0.0]),
    "dapo": ({"kind": "dapo"}, [1.5, 1.25], 2.0, -(1.28 * 2 + 1.25 * 2), [0.0, -1.25 * 2]),
    # the geometric mean of 4 and 0.25 is 1, that of 2 and 0.5 x 1.44 is 1.2
    "gspo": ({"kind": "gspo"}, [4.0, 0.25], 2.0, -2.0, [-1.0, -1.0]),
    "gspo, clipped": ({"kind": "gspo"}, [2.0, 0.72], 2.0, -1.0004 * 2, [0.0, 0.0]),
    "gspo, pessimistic": ({"kind": "gspo"}, [2.0, 0.72], -2.0, 1.2 * 2, [1.2, 1.2]),
    "cispo": ({"kind": "cispo"}, [3.0, 0.5], 2.0, -(2 * 2 * -1 + 0.5 * 2 * -2), [-2.0 * 2, -0.5 * 2]),
    "tis": ({"kind": "tis"}, [3.0, 0.5], 2.0, -(2 * 2 * -1 + 0.5 * 2 * -2), [-2.0 * 2, -0.5 * 2]),
    "not truncated": ({}, [3.0, 0.9], -1.0, 3 + 0.9, [3.0, 0.9]),
    "truncated": ({"correction": "truncated"}, [3.0, 0.9], -1.0, 2 + 0.9, [2.0, 0.9]),
    "truncated, but clipped": ({"correction": "truncated"}, [3.0, 0.9], 1.0, -(1.2 + 0.9), [0.0, -0.9]),
    # geometric means 1.04 and 1.06 with bounds 1 / 1.05 and 1.05
    "mask, kept": ({"correction": "sequence_mask"}, [1.04, 1.04], 1.0, -2.08, [-1.04, -1.04]),
    "mask, dropped": ({"correction": "sequence_mask"}, [1.06, 1.06], 1.0, 0.0, [0.0, 0.0]),
    "mask, dropped below": ({"correction": "sequence_mask"}, [1 / 1.06, 1 / 1.06], 1.0, 0.0, [0.0, 0.0]),
    # IcePop's bounds [0.5, 5]
    "tokens, kept": ({"correction": "token_mask"}, [4.99, 0.51], -1.0, 4.99 + 0.8, [4.99, 0.0]),
    "tokens, dropped": ({"correction": "token_mask"}, [5.01, 0.49], -1.0, 0.0, [0.0, 0.0]),
    "tokens, one of two": ({"correction": "token_mask"}, [0.49, 0.9], 1.0, -0.9, [0.0, -0.9]),
    # The masks look at the ratio to the sampler, also where the loss has the ratio 1
    "tokens, current": ({"correction": "token_mask", "old_policy": "current"}, [0.49, 0.9], 1.0, -1.0, [0.0, -1.0]),
    "mask, current": ({"correction": "sequence_mask", "old_policy": "current"}, [1.06, 1.06], 1.0, 0.0, [0.0, 0.0]),
    # 4 / tau = 4 and p = 1/2 at r = 1; at r = 1 + ln 3, p = 3/4 and 4 p (1 - p) = 3/4
    "sapo": ({"kind": "sapo"}, [1.0, 1 + math.log(3)], 2.0, -(2 * 2 + 3 * 2) / 2, [-1.0, -0.75 * (1 + math.log(3))]),
    "sapo, negative": (
        {"kind": "sapo", "gate_temperature_negative": 2.0}, [1.0, 1 + math.log(3) / 2], -2.0, (1 * 2 + 1.5 * 2) / 2,
        [1.0, 0.75 * (1 + math.log(3) / 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_two_tokens_worked_by_hand(name: str):
    changes, ratios, advantage, total, slopes = BY_HAND[name]
    logp = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    old = logp.detach() - torch.tensor(ratios, dtype=torch.float64).log()
    parts = [(logp, old, advantage)]
    output = loss_of(parts, Loss(**changes))
    assert output.total.item() == pytest.approx(total, rel=1e-12)
    assert gradient(output.total, parts).tolist() == pytest.approx(slopes, rel=1e-12)


def test_the_gate_of_sapo_takes_weight_from_both_sides_of_ratio_1_as_the_paper_writes_it():
    """w = sech^2(tau (r - 1) / 2) beside r A grad log pi (arXiv 2511.20347), which hard clips never bound on both sides."""
    ratio = torch.tensor([0.01, 0.3, 0.9, 1.0, 1.2, 3.0, 30.0], dtype=torch.float64)
    for advantage, temperature in ((2.0, 1.0), (-2.0, 1.05)):
        logp = torch.full_like(ratio, -1.0).requires_grad_()
        parts = [(logp, logp.detach() - ratio.log(), advantage)]
        weight = -7 * gradient(loss_of(parts, Loss(kind="sapo")).total, parts) / (ratio * advantage)
        torch.testing.assert_close(weight, 1 / torch.cosh(temperature * (ratio - 1) / 2) ** 2, rtol=1e-9, atol=1e-12)
        assert weight.argmax() == 3 and weight[6] < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("normalization", "divisors"), [("tokens", [1, 1, 1]), ("sequences", [2, 2, 1])])
def test_the_entropy_is_added_with_its_weight_and_none_of_what_is_masked(
    dtype: torch.dtype, normalization: str, divisors: list[int]
):
    logp = torch.tensor([-1.0, -2.0, -1.5], dtype=dtype, requires_grad=True)
    entropies = torch.tensor([0.5, 2.0, 1.0], dtype=dtype, requires_grad=True)
    behaviour = torch.tensor([-1.0, -2.0, -0.5])  # the ratio of the last is 1 / e
    loss = Loss(entropy_weight=0.25, normalization=normalization, correction="token_mask")
    output = policy_loss(LossInput(logp, behaviour, torch.ones(3), (2, 1), entropies=entropies), loss)
    output.total.backward()
    assert output.total.item() == pytest.approx(-((1 + 0.25 * 0.5) + (1 + 0.25 * 2)) / divisors[0])
    assert entropies.grad.tolist() == [-0.25 / divisors[0], -0.25 / divisors[1], 0.0]
    assert logp.grad.tolist() == [-1 / divisors[0], -1 / divisors[1], 0.0]
    assert named(output)["entropy"] == 3.5, "the whole distribution's, not that of the sampled tokens"
    assert named(output)["masked_tokens"] == 1 and named(output)["masked_sequences"] == 0


def test_a_dropped_sequence_has_no_kl_either():
    logp = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    old, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.5])
    batch = LossInput(logp, old, torch.ones(2), (1, 1), reference)
    output = policy_loss(batch, Loss(correction="sequence_mask", kl_beta=1.0))
    output.total.backward()
    # of the first: -A + 1 - exp(ref - logp)
    assert logp.grad.tolist() == pytest.approx([-1 + 1 - math.exp(-0.5), 0.0])


UNUSABLE = (math.nan, -math.inf, math.inf)


@pytest.mark.parametrize("planted", UNUSABLE)
@pytest.mark.parametrize(("kind", "correction"), PAIRS)
def test_a_sequence_that_the_sampler_cannot_account_for_is_counted_and_the_others_learn_as_without_it(
    kind: str, correction: str, planted: float
):
    parts, loss = make_parts(), settings(kind, correction)
    others = [part for place, part in enumerate(parts) if place != 7]
    with_it = [(logp, old.clone(), advantage) for logp, old, advantage in parts]
    with_it[7][1][3] = planted
    reference = sum(expected(kind, correction, others))
    output = loss_of(with_it, loss)
    assert output.total.item() == pytest.approx(reference.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(output.total, [with_it[7][0]], retain_graph=True)
    assert slope.tolist() == [0.0] * 8, "neither NaN nor anything else"
    torch.testing.assert_close(gradient(output.total, others), gradient(reference, others), rtol=1e-11, atol=1e-12)
    sums, without = map(named, (output, loss_of(others, loss)))
    assert sums["masked_sequences"] == without["masked_sequences"] + 1, "not in silence"
    assert all(map(math.isfinite, sums.values()))
    # Nor with a KL penalty, in the number formats that run.
    for dtype in (torch.float32, torch.bfloat16):
        logp, old = (torch.tensor([-1.0, -2.0], dtype=dtype) for _ in range(2))
        old[1] = planted
        leaf = logp.requires_grad_()
        batch = LossInput(leaf, old, torch.ones(2, dtype=dtype), (2,), torch.tensor([-3.0, -1.0], dtype=dtype))
        total = policy_loss(batch, Loss(kind=kind, correction=correction, kl_beta=0.1)).total
        total.backward()
        assert total.item() == 0 and leaf.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("distance", [60.0, 150.0, 2000.0, -60.0, -150.0, -2000.0])
@pytest.mark.parametrize(("kind", "correction"), PAIRS)
def test_however_far_apart_the_policies_are_no_infinity_forms(kind: str, correction: str, distance: float):
    """Losses in float32, where exp(89) is infinite, against float64 for the tokens that are not far off."""
    now, near = torch.tensor([-1.0, -2.0, -2001.0]), torch.tensor([-1.1, -1.8])
    for advantage in (1.0, -1.0):
        leaf = now.clone().requires_grad_()
        behaviour = torch.cat([near, now[2:] - distance])
        reference = torch.cat([near, now[2:] + distance])
        batch = LossInput(leaf, behaviour, torch.full((3,), advantage), (2, 1), reference)
        output = policy_loss(batch, settings(kind, correction).model_copy(update={"kl_beta": 0.1}))
        output.total.backward()
        assert torch.isfinite(leaf.grad).all() and math.isfinite(output.total.item())
        assert all(map(math.isfinite, named(output).values()))
        alone = now[:2].double().requires_grad_()
        (loss,) = expected(kind, correction, [(alone, near.double(), advantage)])
        kl = (near.double() - alone).exp() - (near.double() - alone) - 1
        (slope,) = torch.autograd.grad(loss + 0.1 * (kl.mean() if kind in BY_SEQUENCE else kl.sum()), alone)
        torch.testing.assert_close(leaf.grad[:2].double(), slope, rtol=1e-5, atol=1e-6)


def test_a_policy_that_is_not_finite_itself_is_never_masked():
    logp = torch.tensor([-1.0, math.nan], requires_grad=True)
    policy_loss(LossInput(logp, torch.tensor([-1.0, -1.0]), torch.ones(2), (2,)), Loss()).total.backward()
    assert math.isnan(logp.grad[1]), "the learner stops at a gradient that is not finite"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_micro_batch_adds_nothing(kind: str):
    empty = torch.zeros(0, requires_grad=True)
    for correction in ("none", "sequence_mask"):
        output = policy_loss(LossInput(empty, empty, empty, (0,)), Loss(kind=kind, correction=correction))
        assert output.total.item() == 0 and output.total.requires_grad
        assert named(output) == dict.fromkeys(METRICS, 0.0)


def test_each_loss_brings_its_own_settings_unless_they_are_given():
    assert Loss() == Loss(kind="grpo", clip_epsilon=0.2, normalization="tokens")
    assert Loss(kind="dapo").clip_range == (0.8, 1.28)
    assert Loss(kind="dapo", clip_epsilon_high=0.3).clip_range == (0.8, 1.3)
    assert Loss(kind="gspo").clip_range == (0.9997, 1.0004) and Loss(kind="gspo").normalization == "sequences"
    assert Loss(kind="dr_grpo").clip_range == (0.8, 1.2) and Loss(kind="dr_grpo").normalization == "constant"
    assert Loss(kind="cispo").clip_range[1] == Loss(kind="tis").clip_range[1] == 2.0
    assert Loss(kind="dr_grpo").advantage == "group_mean" and Loss(kind="sapo").normalization == "sequences"
    assert Loss.model_validate(Loss(kind="gspo").model_dump()) == Loss(kind="gspo")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "dapo", "normalization": "local_micro_batch"}, "dapo goes with loss.normalization tokens"),
        ({"kind": "dr_grpo", "normalization": "tokens"}, "dr_grpo goes with loss.normalization constant"),
        ({"normalization": "constant"}, "grpo goes with loss.normalization tokens"),
        ({"kind": "cispo", "correction": "truncated"}, "cispo truncates"),
        ({"kind": "tis", "correction": "truncated"}, "tis truncates"),
        ({"kind": "sapo", "correction": "truncated"}, "sapo truncates the weights itself, by its gate"),
        ({"kind": "sapo", "normalization": "tokens"}, "sapo goes with loss.normalization sequences"),
        ({"kind": "dr_grpo", "advantage": "leave_one_out"}, "dr_grpo goes with loss.advantage group_mean"),
        ({"token_mask_low": 1.0}, "less than 1"),
        ({"correction": "truncated", "correction_cap": 1.1}, "must not be below the clip's upper bound"),
        ({"kind": ["grpo"]}, "Input should be"),
    ],
)
def test_combinations_without_sense_are_refused(changes: dict, sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Loss(**changes)


@pytest.mark.parametrize("kind", ["grpo", "dapo", "gspo"])
def test_against_the_policy_itself_the_ratio_is_one_whoever_sampled(kind: str):
    parts = make_parts()
    output = loss_of(parts, Loss(kind=kind, old_policy="current"))
    # By hand: -A for each token, and the gradient of -A log pi, whatever the sampler's log-probabilities are.
    per_token = torch.cat([torch.full_like(old, -advantage) for _, old, advantage in parts])
    if kind == "gspo":
        per_token = per_token / torch.cat([torch.full_like(old, len(old)) for _, old, _ in parts])
    torch.testing.assert_close(output.total, per_token.sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(output.total, parts), per_token, rtol=1e-12, atol=1e-12)
    # What is measured is still the distance from the sampler.
    sums, against_sampler = named(output), named(loss_of(parts, Loss(kind=kind)))
    measured = {name: (sums[name], against_sampler[name]) for name in METRICS}
    assert measured["clipped"][0] == 0 < measured["clipped"][1]
    assert all(
        ours == theirs for ours, theirs in (measured[name] for name in ("mismatch_kl", "ratio", "ratio_squared"))
    )


WITH_THE_NEW_LOSS = """
import torch
from openrs_ray.algorithm.losses import LossInput, policy_loss
from openrs_ray.config.loss import Loss

now, then = torch.tensor([-0.4, -1.0, -2.0], dtype=torch.float64), torch.tensor([-1.4, -1.1, -0.2], dtype=torch.float64)
advantages = torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64)
found = policy_loss(LossInput(now, then, advantages, (2, 1)), Loss.model_validate({"kind": "reinforce"}))
expected = -((now - then).exp() * advantages).sum()
assert abs(float(found.total - expected)) < 1e-12 and float(found.sums["clipped"]) == 0
"""


def test_a_loss_as_the_page_has_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "openrs_ray", tmp_path / "openrs_ray", ignore=shutil.ignore_patterns("__pycache__"))
    formula, names = tmp_path / "openrs_ray/algorithm/losses.py", tmp_path / "openrs_ray/config/loss.py"
    changes = (
        (formula, "OBJECTIVES: ", code_below("Adding a loss") + "\n\nOBJECTIVES: "),
        (formula, '    "tis": clipped_weight,\n', '    "tis": clipped_weight,\n    "reinforce": unclipped,\n'),
        (names, 'kind: Literal["grpo", ', 'kind: Literal["reinforce", "grpo", '),
        (names, '    "grpo": {},\n', '    "grpo": {},\n    "reinforce": {},\n'),
    )
    for file, before, after in changes:
        text = file.read_text()
        assert text.count(before) == 1, before
        file.write_text(text.replace(before, after))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITH_THE_NEW_LOSS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
