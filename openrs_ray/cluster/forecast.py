"""Forecast of a run by arithmetic (docs/cost.md has the assumptions)."""

import math
from dataclasses import dataclass

from openrs_ray.cluster.disk import evaluations
from openrs_ray.cluster.memory import ModelShape, engine_parts, itemsize, needs_checkpointing
from openrs_ray.cluster.probes import planned_gpus
from openrs_ray.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Card:
    """Maker's speeds of a GPU."""

    name: str
    gb_per_s: float
    tflops: float
    """Dense bfloat16 with sums in float32."""


CARDS = (
    Card("H200", 4800, 989),
    Card("H100 PCIe", 2039, 756),
    Card("H100 NVL", 3938, 835),
    Card("H100", 3350, 989),
    Card("GH200", 4000, 989),
    Card("B200", 8000, 2250),
    Card("A100-SXM4-80GB", 2039, 312),
    Card("A100 80GB", 1935, 312),
    Card("A100", 1555, 312),
    Card("L40S", 864, 362),
    Card("L40", 864, 181),
    Card("A40", 696, 150),
    Card("A30", 933, 165),
    Card("A10G", 600, 70),
    Card("A10", 600, 125),
    Card("L4", 300, 121),
    Card("RTX 6000 Ada", 960, 364),
    Card("RTX A6000", 768, 155),
    Card("RTX 5090", 1792, 210),
    Card("RTX 4090", 1008, 165),
    Card("RTX 3090", 936, 71),
)
"""The more special name first."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """For one end of the range."""

    length: float
    """Mean, as a share of rollout.max_completion_tokens."""
    prompt: float
    """Mean, as a share of rollout.max_prompt_tokens."""
    bandwidth: float
    """Share used while sampling."""
    compute: float
    """Share used while learning."""


BEST = Assumed(length=0.3, prompt=0.3, bandwidth=0.75, compute=0.4)
WORST = Assumed(length=1.0, prompt=1.0, bandwidth=0.5, compute=0.25)


@dataclass(frozen=True, slots=True)
class Forecast:
    step_s: float
    hours: float
    """With evaluations, without start and checkpoints."""


def card(name: str) -> Card | None:
    """GPU by a name from nvidia-smi or a person; None if unknown."""
    words = _words(name)
    return next((known for known in CARDS if _words(known.name) <= words), None)


def _words(name: str) -> set[str]:
    return {*name.lower().replace("-", " ").split()}


def planned_card(config: RunConfig) -> Card | None:
    """placement.gpu_name's, or this machine's; None if unknown."""
    if config.placement.gpu_name is not None:
        return card(config.placement.gpu_name)
    found = planned_gpus(config.placement.device)
    return card(found[0].name) if found else None


def forecast(config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, held_out: int) -> list[Forecast]:
    """The best and the worst end of the range."""
    return [_forecast(config, shape, gpu, gpu_bytes, held_out, assumed) for assumed in (BEST, WORST)]


def _forecast(
    config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, held_out: int, assumed: Assumed
) -> Forecast:
    sampled = _sampling_s(config, shape, gpu, gpu_bytes, config.completions_per_step, assumed)
    learned = _learning_s(config, shape, gpu, gpu_bytes, assumed)
    overlaps = config.rollout.staleness > 0 and not config.placement.colocated
    step = max(sampled, learned) if overlaps else sampled + learned
    asked = held_out * config.evaluation.samples
    evaluated = evaluations(config) * _sampling_s(config, shape, gpu, gpu_bytes, asked, assumed) if asked else 0.0
    return Forecast(step, (config.run.steps * step + evaluated) / 3600)


def _sampling_s(
    config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, completions: int, assumed: Assumed
) -> float:
    """Seconds on all engines; the longest completion reaches the limit."""
    rollout, engine = config.rollout, config.engine
    each = math.ceil(completions / config.num_engines)
    _, room = engine_parts(config, shape, gpu_bytes)
    at_once = max(1, min(each, engine.max_sequences, room or each))
    prompt, length = assumed.prompt * rollout.max_prompt_tokens, assumed.length * rollout.max_completion_tokens
    passes = max(rollout.max_completion_tokens, each * length / at_once)
    size = itemsize(config)
    weights = size * shape.parameters
    cached = 2 * size * shape.layers * shape.kv_heads * shape.head_dim
    read = passes * weights + each * length * (prompt + length / 2) * cached
    by_memory = read / engine.tensor_parallel / (assumed.bandwidth * gpu.gb_per_s * 1e9)
    computed = 2 * shape.parameters * each * (prompt + length) / engine.tensor_parallel
    return max(by_memory, computed / (assumed.compute * gpu.tflops * 1e12))


def _learning_s(config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, assumed: Assumed) -> float:
    rollout = config.rollout
    tokens = config.completions_per_step * (
        assumed.prompt * rollout.max_prompt_tokens + assumed.length * rollout.max_completion_tokens
    )
    passes = 6 + 2 * needs_checkpointing(config, shape, gpu_bytes) + 2 * (config.loss.kl_beta > 0)
    speed = assumed.compute * gpu.tflops * 1e12 * config.placement.num_learner_gpus
    return passes * shape.parameters * tokens / speed


def forecast_text(
    config: RunConfig, shape: ModelShape, gpu: Card | None, gpu_bytes: float | None, held_out: int
) -> list[str]:
    """The forecast as lines, beside the limits of `cost`."""
    if gpu is None:
        return ["forecast: none without a known GPU, set placement.gpu_name (A40, RTX 4090, H100, ...)"]
    best, worst = forecast(config, shape, gpu, gpu_bytes, held_out)
    price = config.cost.price * config.num_gpus
    dollars = f" and $ {best.hours * price:,.2f} to {worst.hours * price:,.2f}" if price else ""
    return [
        f"forecast (a plan by arithmetic, nothing of it measured): {best.step_s:,.0f} to {worst.step_s:,.0f} s a step, "
        f"{best.hours:,.1f} to {worst.hours:,.1f} hours{dollars} for all {config.run.steps} steps{_limits(config, best, worst)}",
        f"  assumes {gpu.name} GPUs ({gpu.gb_per_s:g} GB/s, {gpu.tflops:g} TFLOP/s in bfloat16): completions of "
        f"{BEST.length:.0%} to {WORST.length:.0%} of rollout.max_completion_tokens, {BEST.bandwidth:.0%} to "
        f"{WORST.bandwidth:.0%} of the bandwidth while sampling, {BEST.compute:.0%} to {WORST.compute:.0%} of the speed while "
        "learning; start and checkpoints come on top",
    ]


def _limits(config: RunConfig, best: Forecast, worst: Forecast) -> str:
    """Example: "; cost.budget_usd 42 is enough" """
    parts = []
    for name, limit, unit in (
        ("cost.budget_usd", config.cost.budget_usd, config.cost.price * config.num_gpus),
        ("cost.max_hours", config.cost.max_hours, 1.0),
    ):
        if limit is not None:
            enough = limit >= worst.hours * unit
            word = "is enough" if enough else "may end it before" if limit >= best.hours * unit else "ends it before"
            parts.append(f"{name} {limit:g} {word}")
    return "".join(f"; {part}" for part in parts)
