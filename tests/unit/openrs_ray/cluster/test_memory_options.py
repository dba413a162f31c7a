"""The memory plan with adapters, 8-bit and offloaded optimizers and quantized engines, against arithmetic and peft."""

import math
import re

import pytest
from peft import LoraConfig, get_peft_model
from places import ROOT
from planned import paper, paper_shape, recipe
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from openrs_ray.cluster.engine_memory import engine_parts, engine_weights
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.host_memory import host_parts, host_text
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import needs_checkpointing, plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.config.schema import RunConfig

GIB = 2**30
PARAMETERS, LARGEST = 1_777_088_000, 151936 * 1536
ONE = ("--placement.num_learner_gpus=1",)


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return paper_shape()


def peak(config: RunConfig, shape: ModelShape, when: str) -> float:
    return sum(learner_phases(config, shape, True)[when].values())


# The goals


def test_the_papers_model_is_fine_tuned_on_one_card_of_24_gb(shape: ModelShape) -> None:
    """All weights, on 24,564 MiB. By hand: bfloat16 weights, float32 gradients, the largest tensor's buffers, two contexts."""
    card = 24564 * 2.0**20
    config = recipe("one-gpu-24gb", f"--placement.gpu_memory_gib={card / GIB}")
    (shared,) = plan(config, shape, card)
    assert shared.fits(0.92 * card)
    assert config.learner.lora.rank == 0 and config.max_sequence_tokens == 4096 and config.loss.kl_beta > 0
    backward = peak(config, shape, "in the backward pass") + 2 * GIB  # the sleeping engine's context and graphs
    by_hand = (2 + 4) * PARAMETERS + (2 + 2 + 6 + 4) * LARGEST + 3 * GIB
    assert by_hand < backward < by_hand + 3 * GIB  # activations
    assert sum(host_parts(config, shape).values()) == pytest.approx((18 + 2) * PARAMETERS + 2 * LARGEST, rel=0.001)


def test_lora_trains_it_on_12_gb(shape: ModelShape) -> None:
    config = recipe("one-gpu-12gb")
    (shared,) = plan(config, shape, 12282 * 2.0**20)
    assert shared.fits(12282 * 2.0**20) and config.learner.lora.rank == 32
    assert shared.sequences is not None and shared.sequences >= 6


CARDS = {"one-gpu-12gb": 12282, "one-gpu-24gb": 24564, "one-gpu-48gb": 46068, "one-gpu-80gb": 81559}
"""MiB of an RTX 3060, an RTX 4090, an A40 and an H100."""


def test_the_recipes_that_the_page_names_for_small_cards_fit_them(shape: ModelShape) -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    named = set(re.findall(r"`(one-gpu-\d+gb)`", page))
    assert named == CARDS.keys()
    for name in named:
        check_fits(recipe(name), shape, Machine(CARDS[name] * 2.0**20))


# Parts


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig])
@pytest.mark.parametrize(
    ("layers", "targets"), [("all", "all-linear"), ("attention", ["q_proj", "k_proj", "v_proj", "o_proj"])]
)
def test_adapters_are_as_many_as_peft_makes(kind: type, layers: str, targets: str | list[str]) -> None:
    config = kind(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=100, tie_word_embeddings=False)  # fmt: skip
    model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=8, target_modules=targets))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    planned = paper("--learner.lora.rank=8", f"--learner.lora.layers={layers}")
    assert ModelShape.of(config).adapters(planned.learner.lora) == trained > 0


def test_adapters_need_neither_a_reference_nor_the_optimizer_of_all_weights(shape: ModelShape) -> None:
    large = (*ONE, "--learner.micro_batch_tokens=4096", "--learner.logprob_chunk_tokens=4096")
    parts = learner_phases(paper(*large, "--learner.lora.rank=32"), shape, True)["in the backward pass"]
    adapters = 28 * 32 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))
    assert parts["reference"] == 0 and parts["optimizer"] == 12 * adapters and parts["gradients"] == 4 * adapters
    assert parts["weights"] == 2 * (PARAMETERS + adapters)
    # No gradient of the head: two forms of a chunk's logits, in bfloat16 and float32, are the largest work
    assert parts["work space"] == 6 * 4096 * 151936
    whole = learner_phases(paper(*large), shape, True)["in the backward pass"]["work space"]
    assert whole == parts["work space"] + 4 * LARGEST


MERGING = 12 * 8960 * 1536
"""Bytes while the largest layer of the blocks is merged: a float32 sum, its rounding, and the bfloat16 result."""


@pytest.mark.parametrize("lora", [0, 32])
def test_a_probe_and_a_checkpoint_take_little_more_than_a_push(shape: ModelShape, lora: int) -> None:
    config = paper(*ONE, f"--learner.lora.rank={lora}")
    pushing, merging = peak(config, shape, "in a push"), MERGING if lora else 0
    # 4 prompts of 512 tokens: of a layer's pass, or of 128 tokens' logits in float32, twice
    layer, head = 2 * 4 * 512 * (4 * 1536 + 3 * 8960), 8 * 128 * 151936
    assert peak(config, shape, "in the probe") == pushing + max(layer + merging, head)
    assert peak(config, shape, "in a checkpoint") == pushing + merging


def test_under_stage_3_weights_are_gathered_for_what_leaves_the_learner(shape: ModelShape) -> None:
    """A push's bucket is the largest parameter here; what a probe gathers is held in a checkpoint; one rank gathers none."""
    for ranks, gathered in ((2, 1), (1, 0)):
        phases = learner_phases(paper("--learner.zero_stage=3", f"--placement.num_learner_gpus={ranks}"), shape, True)
        assert phases["in a push"]["gathered weights"] == gathered * 2 * LARGEST
        assert phases["in the probe"]["gathered weights"] == gathered * 2 * PARAMETERS
        assert phases["in a checkpoint"]["gathered weights"] == gathered * 2 * PARAMETERS


def test_an_engine_that_sleeps_while_the_learner_works_is_awake_in_probe_and_checkpoint(shape: ModelShape) -> None:
    """With adapters these are the peak of a small card: the learner's own parts and the whole engine."""
    config = recipe("one-gpu-12gb")
    (shared,) = plan(config, shape, 11.9 * GIB)
    engine = sum(engine_parts(config, shape, 11.9 * GIB)[0].values())
    assert config.rollout.sleep_while_learning and shared.when == "in the probe"
    assert shared.peak == pytest.approx(peak(config, shape, "in the probe") + engine)
    assert shared.peak > peak(config, shape, "in a checkpoint") + engine > peak(config, shape, "in a push") + engine


def test_8_bit_moments_leave_6_of_12_bytes(shape: ModelShape) -> None:
    plain, eight = (
        learner_phases(paper(f"--learner.optimizer={optimizer}"), shape, True) for optimizer in ("adamw", "adamw_8bit")
    )
    for when in plain:
        saved = sum(plain[when].values()) - sum(eight[when].values())
        assert saved == pytest.approx((12 - 4 - 2 - 8 / 256) * PARAMETERS / 3)


def test_an_offloaded_optimizer_leaves_gradients_on_the_gpu(shape: ModelShape) -> None:
    away, here = (paper(*ONE, f"--learner.optimizer={kind}") for kind in ("adamw_offload", "adamw"))
    for when, saved in (("in a push", 12), ("in the backward pass", 12), ("in the optimizer step", 12)):
        less = peak(here, shape, when) - peak(away, shape, when)
        norm = 8 * LARGEST if when == "in the optimizer step" else 0
        assert less == pytest.approx(saved * PARAMETERS - 2 * LARGEST + norm)
    third = learner_phases(paper("--learner.optimizer=adamw_offload", "--learner.zero_stage=3"), shape, True)
    assert third["in the optimizer step"]["gradients"] == 0 and third["in a push"]["optimizer"] == 0


def test_an_offloaded_reference_visits_before_the_backward_passes(shape: ModelShape) -> None:
    phases = learner_phases(paper(*ONE, "--learner.offload_reference=true"), shape, True)
    assert all(parts["reference"] == 0 for when, parts in phases.items() if when != "in the reference pass")
    visit = phases["in the reference pass"]
    assert visit["reference"] == 2 * PARAMETERS and visit["gradients"] == 0
    assert 8 * 2048 * 151936 <= visit["work space"] < 3 * GIB
    assert learner_phases(paper(*ONE), shape, True).keys() == phases.keys() - {"in the reference pass"}


def test_offloaded_activations_leave_a_layers_input(shape: ModelShape) -> None:
    config = paper("--learner.offload_activations=true")
    assert needs_checkpointing(config, shape, 1000 * GIB)
    kept, all_kept = (
        learner_phases(each, shape, True)["in the backward pass"]["activations"] for each in (config, paper())
    )
    assert all_kept - kept == 27 * 2 * 1536 * 16384 == host_parts(config, shape)["activations"] / 3


@pytest.mark.parametrize(
    ("model", "whole", "quantized"),
    [("Qwen/Qwen2.5-1.5B-Instruct", 3.087e9, 1.781e9), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 3.554e9, 2.248e9)],
)
def test_a_quantized_engine_holds_its_linear_layers_in_a_byte(model: str, whole: float, quantized: float) -> None:
    found = shipped_shape(model)
    assert found is not None
    assert engine_weights(paper(), found) == pytest.approx(whole, rel=1e-3)
    for kind in ("int8", "fp8", "fp8_kv"):
        assert engine_weights(paper(f"--rollout.quantization={kind}"), found) == pytest.approx(quantized, rel=1e-3)


def test_a_cache_of_8_bits_holds_twice_the_tokens(shape: ModelShape) -> None:
    (fp8, few), (kv, many) = (
        engine_parts(paper(f"--rollout.quantization={kind}"), shape, 44 * GIB) for kind in ("fp8", "fp8_kv")
    )
    assert few is not None and many is not None and fp8["cache"] == kv["cache"]
    assert many == math.floor(kv["cache"] / (28 * 2 * 2 * 128 * 4096)) and abs(many - 2 * few) <= 1


def test_the_hosts_memory_is_compared_with_what_is_free(shape: ModelShape) -> None:
    config = paper("--learner.optimizer=adamw_offload")
    (line,) = host_text(config, shape, Machine(44 * GIB, host_bytes=64 * GIB))
    assert "31.1" in line and "64.0 are free" in line and "WARNING" not in line
    (line,) = host_text(config, shape, Machine(44 * GIB, host_bytes=24 * GIB))
    assert "WARNING: only 24.0" in line
    assert not host_text(paper(), shape, Machine(44 * GIB, host_bytes=GIB))
    ranks = host_parts(paper("--learner.offload_reference=true"), shape)
    assert ranks == {"reference": 3 * 2 * PARAMETERS}
