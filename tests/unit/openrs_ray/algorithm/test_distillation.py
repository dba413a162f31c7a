"""The divergence to a teacher and its gradient against plain transformers and autograd, in float64, one sequence at a time."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny import make_sequences, make_turns, naive_model, save_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.distillation import TeacherView, compare
from openrs_ray.algorithm.losses import LossInput, policy_loss
from openrs_ray.algorithm.packing import EMPTY, pack
from openrs_ray.algorithm.policy import Policy, load_policy, micro_batch_arguments
from openrs_ray.config.loss import Loss
from openrs_ray.config.teacher import Teacher

CPU = torch.device("cpu")
TEMPERATURE = 0.7
ERRORS = {"float32": (2e-5, 2e-5), "bfloat16": (0.2, 0.15)}
"""Of a divergence and of a gradient."""


def save_teacher(folder: Path, vocabulary: int = 64) -> Path:
    """Of another family, size and seed than the policy."""
    config = LlamaConfig(
        hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
        head_dim=32, vocab_size=vocabulary, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def tables(model: PreTrainedModel, sequence: TrainingSequence, vocabulary: int = 64) -> Tensor:
    """Log-probabilities of all tokens at the place of each sampled one, float64 [tokens, vocabulary]."""
    ids = torch.tensor([*map(int, sequence.prompt_ids), *map(int, sequence.completion_ids)])
    logits = model(ids[None]).logits[0, :, :vocabulary] / TEMPERATURE
    places = torch.arange(len(sequence.completion_ids))[torch.from_numpy(sequence.mask)] + len(sequence.prompt_ids) - 1
    return logits[places].log_softmax(-1)


def expected_divergence(own: Tensor, its: Tensor, top_k: int) -> Tensor:
    """Reverse KL after all tokens but the policy's top k are made one, by sums of probabilities as they are defined."""
    p, q = own.exp(), its.exp()
    top = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, p.topk(top_k, dim=-1).indices, True)
    one_by_one = torch.where(top, p * (p.log() - q.log()), 0.0).sum(-1)
    rest_p, rest_q = torch.where(top, 0.0, p).sum(-1), torch.where(top, 0.0, q).sum(-1)
    return one_by_one + rest_p * (rest_p / rest_q).log()


def models(tmp_path: Path, dtype: str, vocabulary: int = 64) -> tuple[Policy, Policy, PreTrainedModel, PreTrainedModel]:
    """Policy and teacher, and the same numbers in float64."""
    own, its = save_model(tmp_path / "own"), save_teacher(tmp_path / "its", vocabulary)
    made = [load_policy(str(folder), dtype, chunk_tokens=5) for folder in (own, its)]
    plain = [naive_model(folder) for folder in (own, its)]
    with torch.no_grad():
        for ours, exact in zip(made, plain, strict=True):
            for parameter, twin in zip(ours.parameters(), exact.parameters(), strict=True):
                twin.copy_(parameter)
    return made[0], made[1], plain[0], plain[1]


def view(teacher: Policy, sequences: list[TrainingSequence]) -> TeacherView:
    arguments = micro_batch_arguments(pack(sequences), CPU)
    del arguments["targets"]
    with torch.no_grad():
        return TeacherView(teacher.hidden(**arguments), teacher.head.weight)


# Rounded to bfloat16 another token may be the likeliest, but the likeliest 16 are nearly the same.
@pytest.mark.parametrize(
    ("dtype", "top_k", "vocabulary"),
    [*(("float32", k, 64) for k in (1, 16, 63)), ("float32", 16, 80), ("bfloat16", 16, 80), ("bfloat16", 63, 64)],
)
def test_divergence_and_gradient_equal_plain_autograd(tmp_path: Path, dtype: str, top_k: int, vocabulary: int):
    """Also with a teacher whose head is larger, by rows that are no tokens; 63 of 64 tokens make the whole divergence."""
    policy, teacher, plain, its = models(tmp_path, dtype, vocabulary)
    sequences = make_turns(9)
    own = torch.cat([tables(plain, s) for s in sequences])
    with torch.no_grad():
        other = torch.cat([tables(its, s) for s in sequences])
    expected = expected_divergence(own, other, top_k)
    if top_k == 63:
        torch.testing.assert_close(expected, (own.exp() * (own - other)).sum(-1))
    targets = torch.cat([torch.from_numpy(s.completion_ids[s.mask]).long() for s in sequences])
    chosen = own.gather(-1, targets[:, None])[:, 0]
    weights, others = (torch.linspace(low, high, len(targets), dtype=torch.float64) for low, high in ((1, 2), (-1, 1)))
    (expected @ weights + chosen @ others).backward()

    arguments = micro_batch_arguments(pack(sequences), CPU)
    made = policy(**arguments, temperature=TEMPERATURE, teacher=view(teacher, sequences), top_k=top_k)
    logprobs, divergence, share = made
    (divergence @ weights.float() + logprobs @ others.float()).backward()

    error, gradient_error = ERRORS[dtype]
    torch.testing.assert_close(logprobs.double(), chosen, rtol=0, atol=error)
    torch.testing.assert_close(divergence.double(), expected, rtol=error, atol=error)
    assert divergence.min() > 0 and not share.requires_grad
    torch.testing.assert_close(share.double(), own.exp().topk(top_k, dim=-1).values.sum(-1), rtol=0, atol=error)
    for (name, ours), twin in zip(policy.named_parameters(), plain.parameters(), strict=True):
        off = (ours.grad.double() - twin.grad).norm() / twin.grad.norm().clamp(min=1e-6)
        assert off < gradient_error, name
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("top_k", [1, 4, 16])
def test_a_coarser_divergence_is_never_above_a_finer_one(top_k: int):
    generator = torch.Generator().manual_seed(3)
    own, its = (4 * torch.randn(200, 33, generator=generator) for _ in range(2))
    coarse, finer, whole = (
        compare(own.clone, its.clone, torch.zeros(200, dtype=torch.long), k).divergence for k in (top_k, top_k + 4, 32)
    )
    assert (coarse >= -1e-6).all() and (coarse <= finer + 1e-5).all() and (finer <= whole + 1e-5).all()
    assert compare(own.clone, own.clone, torch.zeros(200, dtype=torch.long), top_k).divergence.abs().max() == 0


def test_a_policy_that_is_sure_is_compared_without_cancellation():
    """All but one token together have the probability 32 e^-30, which 1 - sum would round to 0."""
    own = torch.zeros(1, 33).index_fill_(1, torch.tensor([4]), 30.0)
    its = torch.zeros(1, 33).index_fill_(1, torch.tensor([4]), 25.0)
    got = compare(own.clone, its.clone, torch.tensor([4]), 1)
    exact = [values.double().log_softmax(-1) for values in (own, its)]
    expected = expected_divergence(*exact, top_k=1)
    torch.testing.assert_close(got.divergence.double(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.log_ratio[0, 1].item(), -5.0, rtol=1e-4, atol=0)
    torch.testing.assert_close(got.probability[0, 1].item(), 32 * math.exp(-30), rtol=1e-4, atol=0)


def test_no_tokens_have_no_divergence(tmp_path: Path):
    policy, teacher, *_ = models(tmp_path, "float32")
    arguments = micro_batch_arguments(EMPTY, CPU)
    hidden = torch.zeros(0, teacher.head.weight.shape[1])
    made = policy(**arguments, temperature=1.0, teacher=TeacherView(hidden, teacher.head.weight), top_k=16)
    assert [len(values) for values in made] == [0, 0, 0]
    made[1].sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_sampled_token_estimate_equals_its_formula(dtype: torch.dtype, weight: float):
    """-ratio (w (log q - log p) + (1 - w) A) where no clip binds, its slope with the bracket held fixed."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(4, 60, generator=generator, dtype=torch.float64).to(dtype).double()  # numbers of that format
    own = (values[0] - 3).to(dtype).double()
    sampler, its = (own + 0.05 * values[1]).to(dtype).double(), (own + values[2]).to(dtype).double()
    ratio, bracket = (own - sampler).exp(), weight * (its - own) + (1 - weight) * values[3]
    inside = ~(((ratio > 1.2) & (bracket > 0)) | ((ratio < 0.8) & (bracket < 0)))
    slopes = torch.where(inside, -ratio * bracket, 0.0)
    leaf = own.to(dtype).requires_grad_()
    given = sampler.to(dtype), values[3].to(dtype), (20, 40)
    loss = Loss(kind="distill", teacher=Teacher(path="teacher", top_k=0, weight=weight))
    output = policy_loss(LossInput(leaf, *given, teacher_logprobs=its.to(dtype)), loss)
    output.total.backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(leaf.grad.double(), slopes, rtol=tolerance, atol=tolerance)
    assert output.sums["teacher_kl"].item() == pytest.approx(
        (own - its).sum().item(), rel=tolerance, abs=60 * tolerance
    )


def test_sampled_token_estimate_has_the_gradient_of_the_whole_divergence():
    """In the mean over all tokens, each with the sampler's probability, with a sampler that is another policy."""
    generator = torch.Generator().manual_seed(5)
    logits, sampler, its = torch.randn(3, 12, generator=generator, dtype=torch.float64).unbind()
    leaf = logits.clone().requires_grad_()
    own, other = leaf.log_softmax(-1), its.log_softmax(-1)
    (exact,) = torch.autograd.grad((own.exp() * (own - other)).sum(), leaf)
    mu = (logits + 0.1 * sampler).log_softmax(-1)
    loss = Loss(kind="distill", clip_epsilon=0.9, teacher=Teacher(path="teacher", top_k=0))  # no ratio is that far off
    leaf = logits.clone().requires_grad_()
    totals = [
        policy_loss(
            LossInput(leaf.log_softmax(-1)[[i]], mu[[i]], torch.ones(1).double(), (1,), teacher_logprobs=other[[i]]),
            loss,
        ).total
        for i in range(12)
    ]
    (estimate,) = torch.autograd.grad(sum(mu[i].exp() * total for i, total in enumerate(totals)), leaf)
    torch.testing.assert_close(estimate, exact)


def test_a_mix_is_the_weighted_sum_of_both_losses():
    generator = torch.Generator().manual_seed(4)
    logprobs, sampler, advantages, divergence = torch.randn(4, 30, generator=generator, dtype=torch.float64).unbind()
    given = sampler, advantages, (10, 20)

    def total(weight: float | None) -> tuple[float, Tensor, Tensor]:
        leaves = [values.clone().requires_grad_() for values in (logprobs, divergence)]
        loss = Loss() if weight is None else Loss(kind="distill", teacher=Teacher(path="teacher", weight=weight))
        made = policy_loss(LossInput(leaves[0], *given, divergence=leaves[1] if weight is not None else None), loss)
        made.total.backward()
        zero = torch.zeros_like(logprobs)
        return made.total.item(), *(zero if leaf.grad is None else leaf.grad for leaf in leaves)

    grpo, alone, mix = total(None), total(1.0), total(0.25)
    assert alone[0] == pytest.approx(divergence.sum().item())
    for ours, policy, teacher in zip(mix[1:], grpo[1:], alone[1:], strict=True):
        torch.testing.assert_close(ours, 0.75 * policy + 0.25 * teacher)
    assert mix[0] == pytest.approx(0.75 * grpo[0] + 0.25 * alone[0])


def test_masked_sequences_learn_nothing_from_the_teacher():
    """A sequence that is too far off, and one whose sampler gave no number."""
    lengths = (2, 3, 2)
    logprobs = torch.full((7,), -1.0)
    sampler = torch.tensor([-1.0, -1.0, -2.0, -2.0, -2.0, torch.nan, -1.0])
    divergence = torch.ones(7, requires_grad=True)
    loss = Loss(kind="distill", correction="sequence_mask", mask_ratio=1.5, teacher=Teacher(path="teacher"))
    made = policy_loss(LossInput(logprobs, sampler, torch.zeros(7), lengths, divergence=divergence), loss)
    made.total.backward()
    edges = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    learned = [divergence.grad[start:end].sum().item() for start, end in pairwise(edges)]
    assert learned == [2.0, 0.0, 0.0] and made.sums["masked_sequences"] == 2


@pytest.mark.parametrize(("weight", "clipped"), [(1.0, 0), (0.5, 2)])
def test_no_token_counts_as_clipped_where_no_ratio_is_used(weight: float, clipped: int):
    logprobs, sampler = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-2.0, -2.0, -1.0])  # ratios e, e, 1
    given = torch.ones(3), (3,)
    loss = Loss(kind="distill", teacher=Teacher(path="teacher", weight=weight))
    made = policy_loss(LossInput(logprobs, sampler, *given, divergence=torch.ones(3)), loss)
    assert made.sums["clipped"] == clipped and made.sums["truncated"] == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "distill"}, "go together"),
        ({"teacher": {"path": "toy"}}, "go together"),
        ({"kind": "distill", "teacher": {"path": "toy"}, "correction": "truncated"}, "sequence_mask"),
        ({"kind": "distill", "teacher": {"path": "toy"}, "normalization": "constant"}, "normalization"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Loss.model_validate(given)


def test_sequences_do_not_see_each_others_teacher(tmp_path: Path):
    """Scored together or each alone, the teacher says the same."""
    _, teacher, *_ = models(tmp_path, "float32")
    sequences = make_sequences(5)
    together = view(teacher, sequences).hidden
    alone = torch.cat([view(teacher, [s]).hidden for s in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
