"""Rollouts with a log-probability that is not finite: they lose their verdict and count as errors."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from openrs_ray.records import Group, Rollout, Status, Verdict

_NAMED = 3  # Rollouts of a step that are named; the others are counted


def without_judgement(rollout: Rollout, verdict: Verdict) -> Verdict:
    token = first_unusable_token(rollout)
    if token is None:
        return verdict
    detail = f"the engine's log-probability of token {token} is {rollout.logprobs[token]}"
    return replace(verdict, status=Status.ERROR, rewards={}, reward=None, detail=detail)


def first_unusable_token(rollout: Rollout) -> int | None:
    """Place of the token, from 0."""
    finite = np.isfinite(rollout.logprobs)
    return None if finite.all() else int(finite.argmin())


def unusable_warning(groups: Sequence[Group], step: int) -> str | None:
    """Names such rollouts, if there are any."""
    found = [
        f"problem {group.problem.index} (position {group.position}), sample {rollout.sample}, token {token}"
        for group in groups
        for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True)
        if verdict.status is Status.ERROR and (token := first_unusable_token(rollout)) is not None
    ]
    if not found:
        return None
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"step {step}: in {len(found)} completions the engine gave a log-probability that is not finite, so they are not "
        f"judged: {'; '.join(found[:_NAMED])}{more}"
    )
