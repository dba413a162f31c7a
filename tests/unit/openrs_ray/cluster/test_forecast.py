"""The forecast against an independent roofline of the paper's workload, and the lengths behind it against drawn ones."""

import math

import numpy as np
import pytest
from places import ROOT

from openrs_ray.cluster.cards import card
from openrs_ray.cluster.forecast import BEST, Assumed, Forecast, Run, forecast_under, operations_per_token
from openrs_ray.cluster.lengths import mean, mean_square
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.config.load import load_config

GIB = 2**30
CAP, MEDIAN, SPREAD = 3584, 3000, 0.9
PAPER = Assumed(length=2601 / CAP, prompt=246 / 512, bandwidth=0.75, compute=0.4, host_gb_per_s=60, spread=SPREAD)
"""Of the roofline: 205,000 tokens a step."""
PARAMETERS = 1_777_088_000


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    found = shipped_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert found is not None
    return found


def forecast(shape: ModelShape, *overrides: str, gpu: str = "A40", gib: float | None = 44) -> Forecast:
    config = load_config(ROOT / "launch" / "recipes" / "open-rs3.yaml", list(overrides))
    found = card(gpu)
    assert found is not None
    return forecast_under(PAPER, config, shape, found, gib and gib * GIB, 0)


SYNCHRONOUS = ("--rollout.staleness=0",)
TWO_AHEAD = ("--rollout.staleness=2", "--rollout.in_flight=24", "--engine.max_sequences=256")
EIGHT_BITS = (*TWO_AHEAD, "--rollout.quantization=fp8_kv")


@pytest.mark.parametrize(
    ("overrides", "seconds"),
    [
        (SYNCHRONOUS, 66),
        ((*SYNCHRONOUS, "--placement.colocated=true", "--placement.num_rollout_gpus=4", "--placement.num_learner_gpus=4",
          "--engine.gpu_memory_fraction=0.3"), 50),
        ((), 44),
        (("--placement.num_rollout_gpus=2", "--placement.num_learner_gpus=2"), 36),
        (TWO_AHEAD, 27),  # the roofline leaves out that the longest completion must end within its three steps
        (EIGHT_BITS, 22.6),
        ((*EIGHT_BITS, "--loss.kl_beta=0"), 18.2),
    ],
)  # fmt: skip
def test_four_a40s_take_as_long_as_the_roofline_says(
    shape: ModelShape, overrides: tuple[str, ...], seconds: float
) -> None:
    assert forecast(shape, *overrides).step_s == pytest.approx(seconds, rel=0.2)


def test_the_authors_four_calls_of_18_take_as_long_as_they_report(shape: ModelShape) -> None:
    """By the roofline 156 s, or 21.6 h for 500 steps; they report 24 h."""
    call = forecast(shape, *SYNCHRONOUS, "--rollout.problems_per_step=3").sampling_s
    step = 4 * call + forecast(shape, *SYNCHRONOUS).learning_s
    assert step == pytest.approx(156, rel=0.1) and 500 * step / 3600 == pytest.approx(24, rel=0.05)


@pytest.mark.parametrize(
    ("gpu", "sampling", "learning", "with_adapters"),
    [("RTX 4090", 34, 47, 35), ("L40S", 39, 21, 16), ("A100-SXM4-80GB", 22, 25, 19), ("H100", 19, 8, 6)],
)
def test_one_gpu_takes_as_long_as_the_roofline_says(
    shape: ModelShape, gpu: str, sampling: float, learning: float, with_adapters: float
) -> None:
    one = (*SYNCHRONOUS, "--loss.kl_beta=0", "--placement.colocated=true", "--placement.num_learner_gpus=1",
           "--engine.gpu_memory_fraction=0.5")  # fmt: skip
    full = forecast(shape, *one, gpu=gpu, gib=None)
    assert full.sampling_s == pytest.approx(sampling, rel=0.16)
    assert full.learning_s == pytest.approx(learning, rel=0.1)
    assert forecast(shape, *one, "--learner.lora.rank=32", gpu=gpu, gib=None).learning_s == pytest.approx(
        with_adapters, rel=0.17
    )
    assert full.step_s == full.sampling_s + full.learning_s


def test_operations_are_those_of_the_matrices(shape: ModelShape) -> None:
    """Attention aside, 8 % of a forward pass: 6 per weight, 8 with recomputing, 10 with a reference; 4, 6, 8 with adapters."""
    a40 = card("A40")
    assert a40 is not None

    def per_weight(*overrides: str) -> float:
        config = load_config(ROOT / "launch" / "recipes" / "open-rs3.yaml", list(overrides))
        return operations_per_token(Run(config, shape, a40, 44 * GIB, PAPER)) / PARAMETERS

    for expected, adapters in ((6, ()), (4, ("--learner.lora.rank=8",))):
        for recomputes in (False, True):
            for kl_beta in (0, 0.04):
                options = (f"--learner.gradient_checkpointing={str(recomputes).lower()}", f"--loss.kl_beta={kl_beta}")
                matrices = expected + 2 * recomputes + 2 * (kl_beta > 0)
                assert matrices < per_weight(*options, *adapters) < 1.15 * matrices


def test_what_waits_in_the_hosts_memory_costs_its_way_there(shape: ModelShape) -> None:
    """By hand, at 0.75 x 32 GB/s and 60 GB/s for the host's memory."""
    one = (*SYNCHRONOUS, "--placement.num_learner_gpus=1", "--learner.gradient_checkpointing=true")
    plain = forecast(shape, *one).learning_s
    gpu_step = 28 * PARAMETERS / (0.75 * 696e9)

    def more(*overrides: str) -> float:
        return forecast(shape, *one, *overrides).learning_s - plain

    assert more("--learner.offload_reference=true") == pytest.approx(2 * PARAMETERS / 24e9, rel=0.01)
    update = 42 * PARAMETERS / 60e9 + 6 * PARAMETERS / 24e9
    assert more("--learner.optimizer=adamw_offload") == pytest.approx(update - gpu_step, rel=0.01)
    tokens = 72 * (2601 + 246)
    assert more("--learner.offload_activations=true") == pytest.approx(2 * 27 * 2 * 1536 * tokens / 24e9, rel=0.01)
    assert more("--learner.updates_per_batch=4") == pytest.approx(3 * gpu_step, rel=0.01)


def test_smaller_micro_batches_cost_the_traffic_of_their_gradients(shape: ModelShape) -> None:
    one = (*SYNCHRONOUS, "--placement.num_learner_gpus=1", "--learner.gradient_checkpointing=true")
    few, many = (forecast(shape, *one, f"--learner.micro_batch_tokens={size}").learning_s for size in (16384, 4096))
    batches = math.ceil(72 * 2847 / 4096) - math.ceil(72 * 2847 / 16384)
    assert many - few == pytest.approx(batches * 20 * PARAMETERS / (0.75 * 696e9), rel=0.01)


def test_running_ahead_never_beats_the_slower_side_nor_loses_to_taking_turns(shape: ModelShape) -> None:
    turns = forecast(shape, *SYNCHRONOUS)
    steps = [forecast(shape, f"--rollout.staleness={k}", "--engine.max_sequences=512").step_s for k in (1, 2, 4)]
    assert turns.step_s > steps[0] > steps[1] > steps[2] >= turns.learning_s
    assert forecast(shape, *TWO_AHEAD[:1], "--rollout.in_flight=12").step_s > steps[1]  # fewer at once: more passes


@pytest.mark.parametrize(("median", "spread"), [(MEDIAN / CAP, SPREAD), (0.14, 0.9), (0.5, 0.3)])
def test_lengths_are_log_normal_and_cut(median: float, spread: float) -> None:
    drawn = np.minimum(np.random.default_rng(0).lognormal(math.log(median), spread, 2_000_000), 1)
    assert mean(median, spread) == pytest.approx(drawn.mean(), rel=2e-3)
    assert mean_square(mean(median, spread), spread) == pytest.approx((drawn**2).mean(), rel=2e-3)


def test_the_papers_lengths() -> None:
    assert CAP * mean(MEDIAN / CAP, SPREAD) == pytest.approx(2601, rel=0.003)
    assert mean_square(1.0, SPREAD) == 1.0 and BEST.length < 1
