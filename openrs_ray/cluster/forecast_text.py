"""The forecast of a run in lines for the dry run."""

from collections.abc import Iterator

from openrs_ray.cluster.cards import Card
from openrs_ray.cluster.forecast import BEST, WORST, Forecast, forecast, of_stages
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig


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
        *_stage_lines(config, shape, gpu, gpu_bytes),
    ]


def _stage_lines(config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None) -> Iterator[str]:
    """A line per stage, and one on how long stages are assumed to last."""
    if not config.rollout.stages:
        return
    best, worst = (of_stages(assumed, config, shape, gpu, gpu_bytes) for assumed in (BEST, WORST))
    for number, ((steps, low), (_, high)) in enumerate(zip(best, worst, strict=True)):
        most = config.rollout.stage(number).max_completion_tokens
        yield (
            f"  stage {number + 1}: {steps} steps of completions of up to {most:,} tokens, {low.step_s:,.0f} to "
            f"{high.step_s:,.0f} s a step"
        )
    yield (
        "  a stage is assumed to last until its step or, where only a share of cut completions ends it, for an even part of the "
        "run"
    )


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
