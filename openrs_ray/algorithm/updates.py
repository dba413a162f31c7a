"""Several optimizer steps on one batch (`learner.updates_per_batch`): its shares, and their figures as those of one step."""

from collections.abc import Mapping, Sequence

import numpy as np

from openrs_ray.records import Group, age_metrics

_SUMS = ("completion_tokens", "packed_tokens", "seconds")


def shares(groups: int, updates: int) -> list[slice]:
    """Groups of each update, in order. ValueError where they are not equally many."""
    if groups % updates:
        raise ValueError(f"{groups} groups do not divide into {updates} updates")
    size = groups // updates
    return [slice(start, start + size) for start in range(0, groups, size)]


def over_updates(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """As of one step: sums of tokens and seconds, means of all else, an update weighing as many tokens as it trained on.

    The learning rate is the same in all.
    """
    tokens = np.array([update["completion_tokens"] for update in metrics])
    weights = tokens if tokens.any() else np.ones(len(metrics))
    means = {name: float(np.average([update[name] for update in metrics], weights=weights)) for name in metrics[0]}
    sums = {name: float(sum(update[name] for update in metrics)) for name in _SUMS}
    return {**means, **sums, "learning_rate": metrics[0]["learning_rate"], "updates": float(len(metrics))}


def ages_in_updates(parts: Sequence[Sequence[Group]], step: int, updates: int) -> dict[str, float]:
    """Optimizer steps between the policy that sampled a token and its own update.

    A token of version v in the update u = 0, 1, ... of `step`: (step - 1 - v) x updates + u; with staleness k at most
    (k + 1) x updates - 1.

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
