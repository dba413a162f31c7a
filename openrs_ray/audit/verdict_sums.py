"""Rewards of a verdict put together again, and compared."""

import math
from collections.abc import Mapping
from dataclasses import replace

from openrs_ray.records import Verdict
from openrs_ray.rewards.judge_model.settings import RELATIVE_NAME, SINGLE_NAME

OF_MODELS = (SINGLE_NAME, RELATIVE_NAME)
"""Rewards that a judge model gave."""


def without(verdict: Verdict, names: set[str], weights: Mapping[str, float]) -> Verdict:
    kept = {name: value for name, value in verdict.rewards.items() if name not in names}
    return replace(verdict, rewards=kept, reward=None if verdict.reward is None else _sum(kept, weights))


def with_models(now: Verdict, then: Verdict, weights: Mapping[str, float]) -> Verdict:
    """With what judge models said then."""
    said = {name: value for name, value in then.rewards.items() if name in OF_MODELS}
    if not said or now.reward is None:
        return now
    rewards = dict(now.rewards) | said
    return replace(now, rewards=rewards, reward=_sum(rewards, weights))


def _sum(rewards: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights.get(name, 0.0) * value for name, value in rewards.items())


def difference(then: Verdict, now: Verdict, weights: Mapping[str, float]) -> str | None:
    """The first thing that is not equal, in words."""
    if then.status is not now.status:
        return f"the verdict is {now.status}, and the record has {then.status}"
    if then.answer != now.answer:
        return f"the answer is {now.answer!r}, and the record has {then.answer!r}"
    for name in sorted({*then.rewards, *now.rewards}):
        was, is_now = then.rewards.get(name), now.rewards.get(name)
        if was is None or is_now is None or not _close(was, is_now):
            return f"the reward {name} is {_shown(is_now)}, and the record has {_shown(was)}"
    if (then.reward is None) != (now.reward is None) or not _close(then.reward or 0.0, now.reward or 0.0):
        return f"the weighted reward is {_shown(now.reward)}, and the record has {_shown(then.reward)}"
    return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.10g}"
