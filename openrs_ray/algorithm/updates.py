"""Several optimizer steps (updates) on one batch: shares of the batch, and metrics of all updates as those of one step."""

from collections.abc import Mapping, Sequence

import numpy as np

from openrs_ray.records import Group, age_metrics

_SUMS = ("completion_tokens", "packed_tokens", "seconds")


def shares(groups: int, updates: int) -> list[slice]:
    """Slices of the groups, one per update, in order. ValueError unless all are equally large."""
    if groups % updates:
        raise ValueError(f"{groups} groups do not divide into {updates} updates")
    size = groups // updates
    return [slice(start, start + size) for start in range(0, groups, size)]


def over_updates(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a step from those of its updates: sums of tokens and seconds, and token-weighted means of all else.

    `first_mismatch_kl` is that of the first update that computed tokens: one without spread computes none, and before this one
    nothing but Adam's momentum has moved the policy away from the sampler.
    """
    tokens = np.array([update["completion_tokens"] for update in metrics])
    weights = tokens if tokens.any() else np.ones(len(metrics))
    means = {name: float(np.average([update[name] for update in metrics], weights=weights)) for name in metrics[0]}
    sums = {name: float(sum(update[name] for update in metrics)) for name in _SUMS}
    measured = next((update for update in metrics if update["completion_tokens"]), metrics[0])
    first = {"learning_rate": metrics[0]["learning_rate"], "first_mismatch_kl": measured["mismatch_kl"]}
    return {**means, **sums, **first, "updates": float(len(metrics))}


def ages_in_updates(parts: Sequence[Sequence[Group]], step: int, updates: int) -> dict[str, float]:
    """Ages of the tokens in optimizer steps: from the policy that sampled a token to the update that trains on it.

    In the update u = 0, 1, ... of `step`, a token of version v has the age (step - 1 - v) x updates + u, which with staleness k
    is at most (k + 1) x updates - 1.

    Args:
        parts: groups of each update.
        updates: `learner.updates_per_batch`.
    """
    ages = [age_metrics(groups, step - 1) for groups in parts]
    means, highest = (
        [age[name] * updates + update for update, age in enumerate(ages)] for name in ("age_mean", "age_max")
    )
    tokens = [sum(rollout.sampled_tokens for group in groups for rollout in group.rollouts) for groups in parts]
    return {
        "age_in_updates_mean": float(np.average(means, weights=tokens)),
        "age_in_updates_max": float(max(highest)),
    }
