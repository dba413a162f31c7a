"""The rules of the guard: which figure of a step each one watches, where its limit lies, and which settings may mend it.

Sources of the symptoms: truncation, length and language drift in Open-RS (arXiv 2503.16219, section 4), entropy collapse in
Skywork-OR1 (arXiv 2505.22312) and ProRL (arXiv 2505.24864), gradient norm and mismatch in DAPO (arXiv 2503.14476) and in
docs/losses.md. The limits are measured (docs/guard.md).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openrs_ray.config.guard import Knob
from openrs_ray.config.schema import RunConfig

Line = Mapping[str, Any]
"""A step's line of `metrics.jsonl`."""
_LEAST_MISMATCH = 1e-4
_LEAST_ENTROPY = 0.1
"""Nats per token, below which a multiple of the first steps' figure says nothing."""
_SOLVES = 0.5


@dataclass(frozen=True, slots=True)
class Measure:
    """Compares a window's mean with a bound, made of the rule's limit and the baseline: what the figure was before."""

    words: str
    figure: Callable[[Line, RunConfig], float | None]
    bound: Callable[[float, float], float]
    """Of limit and baseline."""
    mends: tuple[Knob, ...]
    """Settings to change, in the order to try them."""
    above: bool = True
    """Broken above the bound, or below it."""
    share: bool = False
    """Shown in percent."""
    by_stage: bool = True
    """Each of rollout.stages has a baseline of its own."""
    of_best: bool = False
    """The baseline is the best window so far."""
    noisy: bool = False
    """The limit is at least what noise from step to step explains (`noise.departure_by_noise`)."""
    excused: Callable[[Line], bool] = lambda line: False
    """True for a step that cannot break the rule."""

    def broken(self, value: float, bound: float) -> bool:
        return value > bound if self.above else value < bound

    def text(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.share else f"{value:.3g}"


def number(line: Line, name: str) -> float | None:
    """None where there is no such figure, or no finite one."""
    value = line.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _of(name: str) -> Callable[[Line, RunConfig], float | None]:
    return lambda line, config: number(line, name)


def _trained(name: str) -> Callable[[Line, RunConfig], float | None]:
    """Figure of the learner; None for a step that trained on no token, whose 0 says nothing."""
    return lambda line, config: None if line.get("completion_tokens") == 0 else number(line, name)


def _length(line: Line, config: RunConfig) -> float | None:
    """Mean length as a share of the limit that the step was sampled under."""
    length = number(line, "mean_length")
    allowed = number(line, "setting/max_completion_tokens") or config.rollout.max_completion_tokens
    return None if length is None else length / allowed


def _without_spread(line: Line, config: RunConfig) -> float | None:
    """Least possible share of groups that have equal rewards and are not all right: those that are cannot exceed the accuracy."""
    spread, accuracy = number(line, "groups_with_spread"), number(line, "accuracy")
    if spread is None or accuracy is None:
        return None
    groups = config.rollout.problems_per_step + (number(line, "replaced_groups") or 0.0)
    return max(0.0, 1.0 - spread / groups - accuracy)


def _solves(line: Line) -> bool:
    """A policy that solves most problems may be sure of itself."""
    accuracy = number(line, "accuracy")
    return accuracy is not None and accuracy >= _SOLVES


def _risen(limit: float, baseline: float) -> float:
    return baseline + limit


def _fallen(limit: float, baseline: float) -> float:
    return baseline - limit


def _scaled(limit: float, baseline: float) -> float:
    return limit * baseline


MEASURES: dict[str, Measure] = {
    "truncated_share": Measure(
        "the share of truncated completions",
        *(_of("truncated_share"), _risen, ("length", "learning_rate", "kl")),
        share=True,
        noisy=True,
    ),
    "length": Measure(
        "the mean length as a share of the limit",
        _length,
        lambda limit, baseline: max(limit, (1 + baseline) / 2),
        ("length", "learning_rate", "kl"),
        share=True,
    ),
    "language": Measure(
        "the share of the wanted language",
        *(_of("reward_language"), _scaled, ("kl", "learning_rate")),
        above=False,
        share=True,
    ),
    "kl": Measure(
        "the KL to the reference", _trained("kl"), lambda limit, _: limit, ("kl", "learning_rate"), by_stage=False
    ),
    "mismatch": Measure(
        "the divergence between sampler and learner",
        _trained("mismatch_kl"),
        lambda limit, baseline: limit * max(baseline, _LEAST_MISMATCH),
        ("learning_rate", "kl"),
    ),
    "entropy_rise": Measure(
        "the entropy",
        _trained("entropy"),
        lambda limit, baseline: limit * max(baseline, _LEAST_ENTROPY),
        ("learning_rate", "kl"),
    ),
    "entropy_fall": Measure(
        "the entropy", *(_trained("entropy"), _scaled, ("learning_rate", "kl")), above=False, excused=_solves
    ),
    "grad_norm": Measure("the norm of the gradient", _trained("grad_norm"), _scaled, ("learning_rate", "kl")),
    "no_spread": Measure(
        "the share of groups without spread that are not all right",
        *(_without_spread, _risen, ("learning_rate", "kl")),
        share=True,
        noisy=True,
    ),
    "accuracy": Measure(
        "the accuracy of training completions",
        *(_of("accuracy"), _fallen, ("learning_rate", "kl")),
        above=False,
        share=True,
        noisy=True,
        of_best=True,
    ),
}
"""By the name of the rule in the section `guard`; the rule `held_out` looks at intervals (`followers.HeldOutFollower`)."""
