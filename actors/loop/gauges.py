"""The run's figures for Prometheus, through Ray's metrics endpoint, from the driver: docs/monitoring.md names them all.

Ray puts `ray_` before each name. Nothing here reaches the run: Ray sends from a thread of its own.
"""

import asyncio
import math
from collections.abc import Callable, Mapping

from ray.util.metrics import Counter, Gauge

_EVERY_S = 5.0

_OF_STEP = {
    "reward": ("reward", "Mean weighted reward of the step's judged completions"),
    "accuracy": ("accuracy_ratio", "Share of correct completions in the step, of those with a gold"),
    "truncated_share": ("truncated_ratio", "Share of completions cut at rollout.max_completion_tokens"),
    "mean_length": ("completion_length_tokens", "Mean sampled tokens per completion"),
    "entropy": ("entropy_nats", "Mean entropy per token"),
    "kl": ("kl_nats", "Mean k3 divergence per token to the start model"),
    "mismatch_kl": ("mismatch_kl_nats", "Mean k3 divergence per token between engines and learner"),
    "clipped_share": ("clipped_ratio", "Share of tokens silenced by the clip"),
    "grad_norm": ("gradient_norm", "Norm of the gradient before clipping"),
    "age_mean": ("token_age_versions", "Mean age of the trained tokens, in policy versions"),
    "age_max": ("token_age_max_versions", "Age of the oldest trained token, in policy versions"),
    "step_s": ("step_duration_seconds", "Wall time of the last step"),
    "collect_s": ("step_collect_seconds", "Time the last step waited for completions"),
    "train_s": ("step_train_seconds", "Time of the last step's optimizer step"),
    "push_s": ("step_push_seconds", "Time of the last step's weight push"),
}
"""Figures of metrics.jsonl: name of the gauge, its description."""


class Gauges:
    """Life cycle: write() for each line of metrics.jsonl, watch() beside the loop until cancelled."""

    def __init__(self, run: str, steps: int, tokens: int = 0) -> None:
        """`tokens`: sampled by earlier attempts."""
        self._run, self._tokens = run, tokens
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[tuple[str, str], float] = {}  # by name and tags
        self.set("planned_steps", "Steps that the run will have", steps)

    def set(self, name: str, description: str, value: float | None, **tags: str) -> None:
        """Without a value, or with NaN, the last one stays."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"openrs_{name}", description, tag_keys=("run", *tags))
        if value is not None and math.isfinite(value):
            self._gauges[name].set(value, {"run": self._run, **tags})

    def count(self, name: str, description: str, total: float, **tags: str) -> None:
        """Raise a counter to `total`."""
        if name not in self._counters:
            self._counters[name] = Counter(f"openrs_{name}", description, tag_keys=("run", *tags))
        key = name, ",".join(tags.values())
        if (more := total - self._counted.get(key, 0.0)) > 0:
            self._counters[name].inc(more, {"run": self._run, **tags})
            self._counted[key] = total

    def write(self, step: int, figures: Mapping[str, float | int | None], phase: str) -> None:
        if phase == "train":
            self._step(step, figures)
        else:
            self._evaluated(figures)

    def _step(self, step: int, figures: Mapping[str, float | int | None]) -> None:
        self.set("step", "Last finished step", step)
        for figure, (name, description) in _OF_STEP.items():
            self.set(name, description, figures.get(figure))
        tokens, seconds = figures.get("sampled_tokens") or 0, figures.get("step_s")
        if seconds:
            self.set("tokens_per_second", "Sampled tokens per second of the last step", tokens / seconds)
        for side, name in (("engines", "rollout_wait_share"), ("learner", "learner_wait_share")):
            if (idle := figures.get(name)) is not None:
                about = "Share of the last step in which this side had something to do"
                self.set("busy_ratio", about, 1 - idle, side=side)
        self._tokens += int(tokens)
        self.count("sampled_tokens_total", "Sampled tokens since the run began", self._tokens)
        if (dollars := figures.get("cost_usd")) is not None:
            self.count("cost_dollars_total", "Dollars since the run began, over all attempts", dollars)

    def _evaluated(self, figures: Mapping[str, float | int | None]) -> None:
        for bound, name in (("mean", "accuracy"), ("low", "low"), ("high", "high")):
            about = "Accuracy on held-out problems with its 95 % interval"
            self.set("held_out_accuracy_ratio", about, figures.get(name), bound=bound)

    async def watch(self, sample: Callable[["Gauges"], None]) -> None:
        """Call `sample` every few seconds."""
        while True:
            sample(self)
            await asyncio.sleep(_EVERY_S)
