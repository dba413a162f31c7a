"""The memory plan against counted tensors: real DeepSpeed ranks at a small size, and the real model's shape without data."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from live_memory import Live
from places import ROOT
from planned import paper
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, Qwen2Config
from transformers.models.qwen2 import modeling_qwen2

from openrs_ray.algorithm import head as head_module
from openrs_ray.algorithm import policy as model
from openrs_ray.algorithm.policy import ATTENTION, Policy
from openrs_ray.cluster import machine as machine_module
from openrs_ray.cluster.engine_memory import engine_activations, engine_parts
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.learner_memory import activations, learner_phases
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import memory_text, needs_checkpointing, plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.probes import Gpu
from openrs_ray.config.learner import HeadDtype
from openrs_ray.errors import UserError

GIB = 2**30
R1_DISTILL = Qwen2Config(
    hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
    vocab_size=151936, tie_word_embeddings=False, max_position_embeddings=131072,
)  # fmt: skip
PARAMETERS = 1_777_088_000
"""What the model's own safetensors headers add up to."""
EMBEDDING_BYTES = 151936 * 1536 * 2
PIECES_BYTES = 4 * 32 * 2**20
"""Bytes of the slots of a push to another GPU, at either end."""


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return ModelShape.of(R1_DISTILL)


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_the_real_model_has_them(kind: Any, tied: bool) -> None:
    config = kind(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=100, tie_word_embeddings=tied)  # fmt: skip
    attention = 2 * 64 * 64 + 2 * 64 * 32 + ((64 + 32 + 32) if kind is Qwen2Config else 0)  # Qwen2 has biases
    by_hand = (1 if tied else 2) * 100 * 64 + 3 * (attention + 3 * 64 * 96 + 2 * 64) + 64
    real = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert ModelShape.of(config).parameters == real == by_hand


def test_the_papers_model_has_its_known_size(shape: ModelShape) -> None:
    assert shape.parameters == PARAMETERS
    assert shape.largest == 151936 * 1536


# Activations: the real model's size, in tensors that have shapes but no data


class FusedNorm(torch.autograd.Function):
    """Keeps for the backward pass what Liger's RMSNorm kernel keeps, and works in place where it does."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, torch.empty_like(ctx.saved_tensors[1])


class FusedSwiGLU(torch.autograd.Function):
    """The same for its SwiGLU kernel, which writes both gradients over what it kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ctx.saved_tensors


def attention_of_a_gpu(module: nn.Module, query: Any, key: Any, value: Any, mask: None, **arguments: Any) -> Any:
    """What `packed_attention` does on a GPU."""
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    ends, longest = arguments["packed_cumulative"], max(arguments["packed_lengths"])
    return varlen_attn(q, k, v, ends, ends, longest, longest, window_size=(-1, 0), enable_gqa=True)[None], None


def compiled_pick(logits: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    """The head's operations as a GPU has them: compiled into one kernel, they write nothing but their results."""
    return logits.new_empty(len(logits), dtype=torch.float32), logits.new_empty(len(logits), dtype=torch.float32)


def compiled_slope(logits: torch.Tensor, *others: Any) -> torch.Tensor:
    return torch.empty_like(logits, dtype=others[-1])


def summed_logits(hidden: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A GPU's matrix product gives float32 without a float32 weight."""
    return hidden.new_empty(len(hidden), len(weight), dtype=dtype)


def measured_activations(tokens: int, chunk: int, checkpointing: bool, head_dtype: HeadDtype) -> int:
    """Peak of one forward and backward pass, weights aside; gradients are dropped as they come, as ZeRO-2 does."""
    with torch.device("meta"):
        hollow = AutoModelForCausalLM.from_config(R1_DISTILL, dtype=torch.bfloat16, attn_implementation=ATTENTION)
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        policy = Policy(hollow.to_empty(device="cpu"), chunk, head_dtype).train()
        live.leave_out(policy.parameters())
        for parameter in policy.parameters():
            parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
        if checkpointing:
            policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        ids, completion = (torch.zeros(count, dtype=torch.long) for count in (tokens, tokens - tokens // 8))
        live.bytes = 0
        live.restart()
        policy(ids, ids, (4096,) * (tokens // 4096), completion, completion, 0.7).sum().backward()
        return live.peak


@pytest.mark.parametrize(
    ("tokens", "checkpointing", "fused", "chunk", "head_dtype"),
    [(4096, False, False, 1024, "float32"), (8192, False, True, 1024, "model"), (8192, True, False, 1024, "model"),
     (16384, True, True, 1024, "float32"), (16384, True, False, 128, "float32"), (8192, True, True, 4096, "float32"),
     (8192, True, True, 4096, "model")],
)  # fmt: skip
def test_activations_are_within_a_tenth_of_the_real_models(
    shape: ModelShape,
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
    checkpointing: bool,
    fused: bool,
    chunk: int,
    head_dtype: HeadDtype,
) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, attention_of_a_gpu)
    monkeypatch.setattr(model, "_pick_over", compiled_pick)  # of a CPU, which is what is here
    monkeypatch.setattr(model, "_slope_over", compiled_slope)
    for module in (model, head_module):
        monkeypatch.setattr(module, "logits_of", summed_logits)
    if fused:
        norm: Callable = lambda self, x: FusedNorm.apply(x, self.weight)  # noqa: E731
        mlp: Callable = lambda self, x: self.down_proj(FusedSwiGLU.apply(self.gate_proj(x), self.up_proj(x)))  # noqa: E731
        monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", norm)
        monkeypatch.setattr(modeling_qwen2.Qwen2MLP, "forward", mlp)
    config = paper(
        f"--learner.micro_batch_tokens={tokens}", f"--learner.fused_kernels={str(fused).lower()}",
        f"--learner.logprob_chunk_tokens={chunk}", f"--learner.head_dtype={head_dtype}",
    )  # fmt: skip
    saved, work, head = activations(config, shape, checkpointing)
    measured = measured_activations(tokens, chunk, checkpointing, head_dtype)
    assert saved + max(work, head) == pytest.approx(measured, rel=0.1)


# What an engine works in: the same, without a backward pass, with vLLM's fused projections


def measured_pass(tokens: int) -> int:
    """Peak of one pass through the layers, weights aside; the head sees one token of every sequence only."""
    with torch.device("meta"):
        hollow = AutoModelForCausalLM.from_config(R1_DISTILL, dtype=torch.bfloat16, attn_implementation=ATTENTION)
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live, torch.no_grad():
        layers = hollow.to_empty(device="cpu").model
        live.leave_out(layers.parameters())
        ids, ends = torch.zeros(1, tokens, dtype=torch.long), torch.zeros(2, dtype=torch.int32)
        live.bytes = 0
        live.restart()
        layers(ids, use_cache=False, packed_cumulative=ends, packed_lengths=(tokens,))
        return live.peak


@pytest.mark.parametrize("tokens", [2048, 8192])
def test_an_engines_activations_are_within_a_tenth(
    shape: ModelShape, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    def feed_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        gate_and_up = x.new_empty(*x.shape[:-1], 2 * self.gate_proj.out_features)
        return self.down_proj(torch.empty_like(gate_and_up[..., ::2]))

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, attention_of_a_gpu)
    monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", lambda self, x: torch.empty_like(x))
    monkeypatch.setattr(modeling_qwen2.Qwen2MLP, "forward", feed_forward)
    config = paper(f"--engine.max_batched_tokens={tokens}")
    assert engine_activations(config, shape) == pytest.approx(measured_pass(tokens), rel=0.1)


def test_larger_passes_leave_less_room_for_the_cache(shape: ModelShape) -> None:
    (small, more), (large, fewer) = (
        engine_parts(paper(f"--engine.max_batched_tokens={tokens}"), shape, 44 * GIB) for tokens in (2048, 16384)
    )
    assert large["work space"] - small["work space"] == small["cache"] - large["cache"] > 0
    assert more is not None and fewer is not None and more > fewer


# The plan


def test_the_papers_run_fits_its_gpus_with_room(shape: ModelShape) -> None:
    config = paper()
    assert needs_checkpointing(config, shape, 44 * GIB)
    learner, rollout = plan(config, shape, 44 * GIB)
    # bfloat16 weights twice (policy, reference); a third of 12 bytes of optimizer and of 4 bytes of gradients
    assert sum(learner.parts[name] for name in ("weights", "reference", "optimizer", "gradients")) == pytest.approx(
        (2 + 2 + 12 / 3 + 4 / 3) * PARAMETERS
    )
    assert 18 * GIB < learner.peak < 24 * GIB
    # 90 % for the engine, and while weights arrive the embedding in its bucket and once more where it is put
    assert rollout.peak == pytest.approx(0.9 * 44 * GIB + 2 * EMBEDDING_BYTES + PIECES_BYTES, rel=0.001)
    assert rollout.sequences is not None and rollout.sequences > config.engine.max_sequences
    check_fits(config, shape, Machine(44 * GIB))


def test_a_push_takes_no_second_copy_of_the_model(shape: ModelShape) -> None:
    learner = learner_phases(paper(), shape, True)["in a push"]
    engine, _ = engine_parts(paper(), shape, 44 * GIB)
    assert learner["push buffer"] == PIECES_BYTES
    assert engine["push buffers"] < 1.1e9


def test_smaller_micro_batches_need_no_checkpointing_there(shape: ModelShape) -> None:
    config = paper("--learner.micro_batch_tokens", "8192")
    assert not needs_checkpointing(config, shape, 44 * GIB)
    assert plan(config, shape, 44 * GIB)[0].peak < 0.85 * 44 * GIB
    assert needs_checkpointing(config, shape, 36 * GIB)


def test_checkpointing_is_on_where_the_memory_is_unknown_and_otherwise_as_said(shape: ModelShape) -> None:
    assert needs_checkpointing(paper("--learner.micro_batch_tokens", "4096"), shape, None)
    assert not needs_checkpointing(paper("--learner.gradient_checkpointing", "false"), shape, None)
    assert needs_checkpointing(paper("--learner.gradient_checkpointing", "true"), shape, 1000 * GIB)


def test_the_cache_is_what_vllm_allots(shape: ModelShape) -> None:
    parts, sequences = engine_parts(paper(), shape, 44 * GIB)
    assert sum(parts[name] for name in ("weights", "work space", "cache")) == pytest.approx(0.9 * 44 * GIB)
    # keys and values of 28 layers, 2 heads of 128, 2 bytes each, 4,096 tokens
    assert sequences == parts["cache"] // (2 * 28 * 2 * 128 * 2 * 4096)
    split, more = engine_parts(
        paper("--engine.tensor_parallel", "2", "--placement.num_rollout_gpus", "2"), shape, 44 * GIB
    )
    assert split["weights"] == parts["weights"] / 2
    assert more is not None and sequences is not None and more > 2 * sequences


SHARED = (
    "--rollout.staleness",
    "0",
    "--placement.colocated",
    "true",
    "--placement.num_learner_gpus",
    "1",
    "--engine.gpu_memory_fraction",
    "0.4",
)


def test_on_a_shared_gpu_a_sleeping_engine_counts_only_while_it_is_awake(shape: ModelShape) -> None:
    def peak(*overrides: str) -> float:
        return plan(paper("--learner.micro_batch_tokens", "8192", *overrides), shape, 80 * GIB)[0].peak / GIB

    no_checkpointing = ("--learner.gradient_checkpointing", "false")
    asleep = (*SHARED, "--rollout.sleep_while_learning", "true")
    alone = peak("--placement.num_learner_gpus", "1", *no_checkpointing)
    pushed = 2 * EMBEDDING_BYTES / GIB
    bucket = (EMBEDDING_BYTES - PIECES_BYTES) / GIB  # engines on the same GPU read a whole one
    assert peak(*SHARED, *no_checkpointing) == pytest.approx(alone + bucket + 0.4 * 80 + pushed, abs=0.1)
    # With a large engine the push and its probe are the peak (weights, reference, optimizer; staging buffer and CUDA; float32
    # logits of 128 tokens and as much work space), else the learning.
    at_rest = (2 + 2 + 12) * PARAMETERS / GIB + EMBEDDING_BYTES / GIB + 1
    probe = 2 * 4 * 128 * 151936 / GIB
    assert peak(*asleep, *no_checkpointing) == pytest.approx(at_rest + probe + 0.4 * 80 + pushed, abs=0.1)
    small = peak(*asleep, *no_checkpointing, "--engine.gpu_memory_fraction", "0.2")
    assert alone < small < alone + 3


@pytest.mark.parametrize(
    ("gib", "overrides", "problem", "advice"),
    [
        (44, ("--learner.gradient_checkpointing", "false"), "each learner GPU has 44.0 GiB but needs 50",
         ["learner.micro_batch_tokens 8192", "learner.gradient_checkpointing true"]),
        (44, ("--engine.gpu_memory_fraction", "0.1"), "no room for one completion of 4096 tokens",
         ["engine.gpu_memory_fraction 0.9"]),
        (40, ("--learner.zero_stage", "1", "--placement.num_learner_gpus", "1"), "each learner GPU has 40.0 GiB",
         ["learner.zero_stage 2", "placement.num_learner_gpus 2"]),
        (44, SHARED, "each shared GPU", ["micro_batch_tokens 4096", "--rollout.sleep_while_learning true"]),
        (6, (), "each learner GPU has 6.0 GiB", ["no setting is enough"]),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_fit_is_refused_with_what_would_help(
    shape: ModelShape,
    monkeypatch: pytest.MonkeyPatch,
    gib: float,
    overrides: tuple[str, ...],
    problem: str,
    advice: list[str],
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    with pytest.raises(UserError, match=problem) as refused:
        check_fits(paper(*overrides), shape, Machine(gib * GIB))
    sentence = str(refused.value)
    assert all(each in sentence for each in advice), sentence
    ways = sentence.partition("the cheapest change that fits is ")[2].split(", or ")
    for way in filter(None, ways):  # what is said to help does, typed as it is said
        check_fits(paper(*overrides, *way.partition(" (")[0].split()), shape, Machine(gib * GIB))


def test_advice_stays_within_the_machine(shape: ModelShape, monkeypatch: pytest.MonkeyPatch) -> None:
    two = ("--learner.zero_stage", "1", "--placement.num_learner_gpus", "1")
    for gpus, offered in ((0, False), (2, False), (3, True)):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        with pytest.raises(UserError, match="each learner GPU has") as refused:
            check_fits(paper(*two), shape, Machine(40 * GIB))
        assert ("placement.num_learner_gpus 2" in str(refused.value)) == offered, f"{gpus} GPUs"


def rows_of_the_page() -> list[str]:
    """The options of each row of the table of placements in docs/training.md."""
    table = (ROOT / "docs" / "training.md").read_text().partition("| to put | set |")[2].partition("\n\n")[0]
    rows: list[str] = []
    for line in table.splitlines()[2:]:
        what, given = (cell.strip() for cell in line.strip("|").rsplit("|", 1))
        options = " ".join(re.findall(r"`(--[^`]*)`", given))
        if given.startswith("the same with"):
            options = f"{rows[-1]} {options}"
        rows.append(options)
        if numbers := re.search(r"or `(\d)` and `(\d)`", given):
            rows.append("--placement.num_rollout_gpus {} --placement.num_learner_gpus {}".format(*numbers.groups()))
        assert options or given == "nothing", what
    return rows


@pytest.mark.parametrize("options", rows_of_the_page())
def test_every_row_of_the_page_fits_the_papers_recipe(shape: ModelShape, options: str) -> None:
    config = paper(*options.split())
    check_fits(config, shape, Machine(44 * GIB))
    lines = [line for line in memory_text(config, shape, 44 * GIB) if "completions of" in line or "learner:" in line]
    assert all(": fits" in line for line in lines), lines  # not even tight


def test_numbers_without_a_verdict_where_the_size_is_unknown(shape: ModelShape) -> None:
    unknown, known = memory_text(paper(), shape, None), memory_text(paper(), shape, 44 * GIB)
    assert "fits" in known[1] and "306 completions" in known[3]
    assert not any("fit" in line for line in unknown)
    assert "weights 3.3 + reference 3.3 + optimizer 6.6 + gradients 2.2" in known[2] and known[2] == unknown[2]
    check_fits(paper(), shape, Machine(None))


@pytest.mark.parametrize(("gpu", "quantization", "reason"), [
    ("NVIDIA B200", "int8", "below 10.0, and this one has 10.0: set it to fp8"), ("NVIDIA B200", "fp8", ""),
    ("NVIDIA A40", "fp8", ""), ("NVIDIA A40", "int8", ""), ("Tesla T4", "int8", ""),
    ("NVIDIA A40", "fp8_kv", "8.9 or more, and this one has 8.6: set it to fp8"), ("NVIDIA L40S", "fp8_kv", ""),
])  # fmt: skip
def test_8_bits_that_the_planned_gpu_cannot_compute_are_refused_before_an_engine_starts(
    shape: ModelShape, gpu: str, quantization: str, reason: str
) -> None:
    """A T4 is not among the known GPUs: there the worker says it."""
    config = paper(
        f"--rollout.quantization={quantization}", f"--placement.gpu_name={gpu}", "--push.probe_tolerance=0.3"
    )
    machine = Machine.planned(config)
    if reason:
        with pytest.raises(UserError, match=reason):
            check_fits(config, shape, machine)
        with pytest.raises(UserError, match=r"and this one has \d+\.\d: take a GPU like the one that the run began on"):
            check_fits(config, shape, machine, frozenset({"rollout.quantization"}))
    else:
        check_fits(config, shape, machine)


def test_the_head_nodes_own_gpu_decides_nothing_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "planned_gpus", lambda device: [Gpu(0, "NVIDIA B200", "580.95", 183359, 4)])
    elsewhere = paper("--placement.gpu_name=null")
    assert Machine.planned(elsewhere).capability == 100
    assert Machine.planned(elsewhere, this_machine=False).capability is None
