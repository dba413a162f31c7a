"""Packed, chunked log-probabilities against plain transformers, one sequence at a time, in float64."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from live_memory import Live
from tiny import (
    make_config,
    make_sequences,
    make_turns,
    naive_entropies,
    naive_logprobs,
    naive_model,
    naive_turns,
    save_model,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Cohere2Config, GraniteConfig, Qwen2Config

from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import EMPTY, pack
from openrs_ray.algorithm.policy import (
    ChunkedLogprobs,
    Policy,
    _pick,
    _pick_over,
    _slope,
    _slope_over,
    load_policy,
    micro_batch_arguments,
    packed_arguments,
)
from openrs_ray.cluster.learner_memory import activations
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.learner import HeadDtype
from openrs_ray.errors import UserError

CPU = torch.device("cpu")
MakeSequences = Callable[[int], list[TrainingSequence]]


def logprobs(policy: Policy, sequences: list[TrainingSequence], temperature: float = 1.0) -> torch.Tensor:
    return policy(**micro_batch_arguments(pack(sequences), CPU), temperature=temperature)


@pytest.mark.parametrize(("temperature", "checkpointing"), [(1.0, False), (0.7, True)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("family", "kv_heads"), [("qwen2", 1), ("llama", 1), ("qwen2", 2)])
def test_packed_equals_one_by_one(
    tmp_path: Path, family: str, kv_heads: int, tied: bool, checkpointing: bool, temperature: float
):
    folder = save_model(tmp_path, family, tied, kv_heads)
    sequences = make_sequences(9)
    reference = naive_model(folder)
    expected = torch.cat([naive_logprobs(reference, s.prompt_ids, s.completion_ids, temperature) for s in sequences])
    weights = torch.linspace(-1, 1, len(expected), dtype=torch.float64)
    (expected * weights).sum().backward()

    policy = load_policy(str(folder), "float32", chunk_tokens=5)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    got = logprobs(policy, sequences, temperature)
    (got * weights.float()).sum().backward()

    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5)
    names = [name for name, _ in policy.model.named_parameters()]
    assert names == [name for name, _ in reference.named_parameters()]
    assert ("lm_head.weight" in names) is not tied
    for (name, own), (_, its) in zip(policy.model.named_parameters(), reference.named_parameters(), strict=True):
        error = (own.grad.double() - its.grad).norm() / its.grad.norm().clamp(min=1e-6)
        assert error < 1e-5, name


@pytest.mark.parametrize(
    ("dtype", "logprob_error", "gradient_error"), [("float32", 2e-5, 1e-5), ("bfloat16", 0.2, 0.1)]
)
def test_sampled_tokens_among_given_ones_equal_each_turn_alone(
    tmp_path: Path, dtype: str, logprob_error: float, gradient_error: float
):
    folder, sequences = save_model(tmp_path), make_turns(9)
    policy, reference = load_policy(str(folder), dtype, chunk_tokens=5), naive_model(folder)
    with torch.no_grad():
        for own, its in zip(policy.model.parameters(), reference.parameters(), strict=True):
            its.copy_(own)  # the same numbers
    expected = torch.cat([naive_turns(reference, s, 0.7) for s in sequences])
    weights = torch.linspace(-1, 1, len(expected), dtype=torch.float64)
    (expected * weights).sum().backward()
    got = logprobs(policy, sequences, 0.7)
    (got * weights.float()).sum().backward()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=logprob_error)
    for (name, own), (_, its) in zip(policy.model.named_parameters(), reference.named_parameters(), strict=True):
        error = (own.grad.double() - its.grad).norm() / its.grad.norm().clamp(min=1e-6)
        assert error < gradient_error, name


@pytest.mark.parametrize("make", [make_sequences, make_turns])
@pytest.mark.parametrize(
    ("dtype", "logprob_error", "gradient_error"), [("float32", 2e-5, 1e-5), ("bfloat16", 0.2, 0.1)]
)
def test_shared_prompts_equal_each_completion_alone(
    tmp_path: Path, make: MakeSequences, dtype: str, logprob_error: float, gradient_error: float
):
    folder, apart = save_model(tmp_path), make(12)
    groups = [replace(s, prompt_ids=apart[i // 4].prompt_ids) for i, s in enumerate(apart)]
    mixed = [groups[i] for i in (3, 8, 0, 1, 4, 9, 11, 2, 5, 7, 10, 6)]
    policy, reference = load_policy(str(folder), dtype, chunk_tokens=5), naive_model(folder)
    with torch.no_grad():
        for own, its in zip(policy.model.parameters(), reference.parameters(), strict=True):
            its.copy_(own)
    expected = torch.cat([naive_turns(reference, s, 0.7) for s in mixed])
    weights = torch.linspace(-1, 1, len(expected), dtype=torch.float64)
    (expected * weights).sum().backward()
    batch = pack(mixed, share_prompts=True)
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with Largest() as largest:
        got = policy(**micro_batch_arguments(batch, CPU), temperature=0.7)
    rows = sum(len(apart[group].prompt_ids) for group in range(3)) + sum(len(s.completion_ids) for s in mixed)
    assert batch.computed_tokens == rows < sum(map(len, mixed))
    assert {(1, rows, 96), (1, rows, 64)} <= largest.shapes, "what each layer computes"
    (got * weights.float()).sum().backward()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=logprob_error)
    for (name, own), (_, its) in zip(policy.model.named_parameters(), reference.named_parameters(), strict=True):
        error = (own.grad.double() - its.grad).norm() / its.grad.norm().clamp(min=1e-6)
        assert error < gradient_error, name


def test_the_head_computes_the_same_in_the_memory_of_the_logits():
    """The CPU's implementation against the one that a GPU compiles."""
    generator = torch.Generator().manual_seed(0)
    logits, gradient = 5 * torch.randn(7, 33, generator=generator), torch.randn(7, generator=generator)
    targets = torch.arange(7)
    normaliser = (logits / 0.7).logsumexp(-1)
    of_entropies = torch.randn(7, generator=generator), torch.rand(7, generator=generator)
    for entropies in (False, True):
        got, expected = (pick(logits.clone(), targets, 0.7, entropies) for pick in (_pick_over, _pick))
        assert len(got) == 2 + entropies
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for more in ((), of_entropies):
        by_token = targets, normaliser, gradient, 0.7, torch.float32, *more
        got, expected = (slope(logits.clone(), *by_token) for slope in (_slope_over, _slope))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_sequence_does_not_see_its_neighbours(tmp_path: Path):
    policy = load_policy(str(save_model(tmp_path)), "float32", 64)
    first, second, other = make_sequences(3)
    with torch.no_grad():
        assert torch.equal(logprobs(policy, [first, second])[: len(first.completion_ids)],
                           logprobs(policy, [first, other])[: len(first.completion_ids)])  # fmt: skip


def test_bfloat16_stays_near_the_float64_reference(tmp_path: Path):
    folder = save_model(tmp_path)
    sequences = make_sequences(9)
    reference = naive_model(folder)
    expected = torch.cat([naive_logprobs(reference, s.prompt_ids, s.completion_ids) for s in sequences])
    got = logprobs(load_policy(str(folder), "bfloat16", 5), sequences)
    assert got.dtype == torch.float32
    assert (got.double() - expected).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("head_dtype", "logprob_error", "gradient_error"), [("float32", 2e-5, 3e-3), ("model", 0.2, 0.1)]
)
def test_the_logits_of_a_bfloat16_model(head_dtype: HeadDtype, logprob_error: float, gradient_error: float):
    """Against float64 on the same numbers. Like a trained model's, the logits reach 30, where bfloat16 has steps of 1/8."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 64, generator=generator).bfloat16() for rows in (96, 4096))
    outside = torch.randn(96, generator=generator)
    precise = [tensor.double().requires_grad_() for tensor in (hidden, weight)]
    table = (precise[0] @ precise[1].T / 2.0).log_softmax(-1)
    targets = torch.multinomial(table.detach().exp(), 1, generator=generator)[:, 0]
    expected = table[range(96), targets]
    (expected * outside).sum().backward()

    leaf = hidden.clone().requires_grad_()
    head = ChunkedLogprobs(nn.Parameter(weight), 10, head_dtype)
    got = head(leaf, targets, 2.0)
    (got * outside).sum().backward()
    errors = [
        (got - expected).abs().max(),
        *map(relative_error, (leaf.grad, head.weight.grad), (p.grad for p in precise)),
    ]
    bounds = [logprob_error, gradient_error, gradient_error]
    assert all(bound / 20 < error < bound for error, bound in zip(errors, bounds, strict=True)), errors


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("dtype", "entropy_error", "gradient_error"), [("float32", 2e-5, 1e-5), ("bfloat16", 0.05, 0.1)]
)
def test_entropies_and_their_gradient_are_those_of_the_whole_distribution(
    tmp_path: Path, dtype: str, entropy_error: float, gradient_error: float, temperature: float
):
    folder, sequences = save_model(tmp_path), make_sequences(9)
    policy, reference = load_policy(str(folder), dtype, chunk_tokens=5), naive_model(folder)
    with torch.no_grad():
        for own, its in zip(policy.model.parameters(), reference.parameters(), strict=True):
            its.copy_(own)
    pairs = [(s.prompt_ids, s.completion_ids) for s in sequences]
    expected = [torch.cat([f(reference, *p, temperature) for p in pairs]) for f in (naive_logprobs, naive_entropies)]
    weights = torch.linspace(-1, 1, len(expected[0]), dtype=torch.float64)
    (expected[0] * weights.roll(7) + expected[1] * weights).sum().backward()
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    arguments = {**micro_batch_arguments(pack(sequences), CPU), "temperature": temperature}
    got = policy(**arguments, entropies=True)
    (got[0] * weights.roll(7).float() + got[1] * weights.float()).sum().backward()
    assert got[1].dtype == torch.float32 and got[1].std() > 0.01
    torch.testing.assert_close(got[1].double(), expected[1], rtol=0, atol=entropy_error)
    assert torch.equal(got[0], policy(**arguments)), "log-probabilities are the same bits with and without"
    for (name, own), (_, its) in zip(policy.model.named_parameters(), reference.named_parameters(), strict=True):
        error = (own.grad.double() - its.grad).norm() / its.grad.norm().clamp(min=1e-6)
        assert error < gradient_error, name


@pytest.mark.parametrize(("head_dtype", "bound"), [("float32", 3e-3), ("model", 0.1)])
def test_entropies_of_a_bfloat16_head_where_some_tokens_are_certain_and_some_are_not(
    head_dtype: HeadDtype, bound: float
):
    """Against float64 on the same numbers, by entropies alone."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 64, generator=generator).bfloat16() for rows in (96, 4096))
    hidden[:8] *= 8  # logits up to 250: one token has it all
    hidden[8:16] /= 64  # nearly uniform
    outside = torch.randn(96, generator=generator)
    precise = [tensor.double().requires_grad_() for tensor in (hidden, weight)]
    table = (precise[0] @ precise[1].T / 2.0).log_softmax(-1)
    expected = -(table.exp() * table).sum(-1)
    assert expected[:8].min() < 1e-3 and expected[8:16].max() > 0.99 * np.log(4096)
    (expected * outside).sum().backward()
    leaf = hidden.clone().requires_grad_()
    head = ChunkedLogprobs(nn.Parameter(weight), 10, head_dtype)
    _, got = head(leaf, torch.arange(96), 2.0, True)
    (got * outside).sum().backward()
    assert (got - expected).abs().max() < bound and got.min() >= 0
    assert relative_error(leaf.grad, precise[0].grad) < 2 * bound
    assert relative_error(head.weight.grad, precise[1].grad) < 2 * bound


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (got.double() - expected).norm() / expected.norm()


def test_an_empty_micro_batch_has_zero_gradient_everywhere(tmp_path: Path):
    policy = load_policy(str(save_model(tmp_path)), "float32", 64)
    logprobs, entropies = policy(**micro_batch_arguments(EMPTY, CPU), temperature=1.0, entropies=True)
    (logprobs + entropies).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in policy.parameters())


class Largest(TorchDispatchMode):
    """Remembers the shapes of all tensors that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.shapes.add(tuple(value.shape))
        return result


@pytest.mark.parametrize("entropies", [False, True])
def test_no_full_table_of_logits_and_no_mask_is_ever_made(tmp_path: Path, entropies: bool):
    vocabulary, chunk = 1009, 32
    policy = load_policy(str(save_model(tmp_path, vocabulary=vocabulary)), "float32", chunk)
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, vocabulary, 150).astype(np.int32) for _ in range(4)]
    sequences = [TrainingSequence(t[:10], t[10:], np.zeros(140, dtype=np.float32), 1.0) for t in tokens]
    with Largest() as seen:
        found = policy(**micro_batch_arguments(pack(sequences), CPU), temperature=1.0, entropies=entropies)
        (sum(found) if entropies else found).sum().backward()
    transposed_weight = (64, vocabulary)
    tables = {shape for shape in seen.shapes if len(shape) > 1 and shape[-1] == vocabulary} - {transposed_weight}
    assert max(tables) == (chunk, vocabulary)  # chunks were seen, and nothing larger
    assert not [shape for shape in seen.shapes if shape[-2:] in ((600, 600), (150, 150))]


def test_entropies_take_as_much_memory_as_the_plan_says(tmp_path: Path):
    """On a CPU: one more table of a chunk, whatever the number of tokens."""
    shape = ModelShape.of(Qwen2Config(hidden_size=64, num_attention_heads=2, head_dim=32, vocab_size=20_000))
    peaks, planned = list[int](), list[float]()
    for weight in (0.0, 0.1):
        config = make_config(tmp_path, loss={"entropy_weight": weight})
        head = ChunkedLogprobs(nn.Parameter(torch.randn(20_000, 64)), config.learner.logprob_chunk_tokens, "float32")
        with Live() as live:
            found = head(torch.randn(60, 64, requires_grad=True), torch.arange(60), 1.0, weight > 0)
            (sum(found) if weight else found).sum().backward()
        peaks.append(live.peak)
        planned.append(activations(config, shape, checkpointing=False)[2])
    assert planned[1] - planned[0] == 4 * 7 * 20_000
    assert peaks[1] - peaks[0] == pytest.approx(planned[1] - planned[0], rel=0.02)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GraniteConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                       num_key_value_heads=2, vocab_size=64, logits_scaling=7.0), "computes its logits"),
        (Cohere2Config(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                       num_key_value_heads=2, vocab_size=64, sliding_window=8,
                       layer_types=["sliding_attention", "full_attention"]), "sliding_attention"),
    ],
)  # fmt: skip
def test_models_that_would_be_computed_wrongly_are_refused(tmp_path: Path, config, message: str):
    config.initializer_range = 1.0
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        load_policy(str(tmp_path), "float32", 64)


def test_a_model_with_large_logits_is_taken_in_bfloat16(tmp_path: Path):
    model = naive_model(save_model(tmp_path))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(300)
    model.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), "bfloat16", 64)
    hidden = policy.model.base_model(torch.arange(8)[None], **packed_arguments((8,), torch.device("cpu")))
    assert policy.head.weight.matmul(hidden.last_hidden_state[0].T).abs().max() > 20
