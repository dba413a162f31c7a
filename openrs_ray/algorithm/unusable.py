"""Completions of which the engine gave a log-probability that is not finite: without it nothing can be learned from them.

Life of one: the collector takes its verdict away, so it has no reward, leaves the loss and counts as an error of
`rewards.max_unjudged_share`; the trainer names it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from openrs_ray.records import Completion, Group, Status, Verdict

_NAMED = 3
"""Number of completions of a step that are named; the others are counted."""


def without_judgement(completion: Completion, verdict: Verdict) -> Verdict:
    """The verdict, or one without reward where a log-probability of the completion is not finite."""
    token = first_unusable_token(completion)
    if token is None:
        return verdict
    detail = f"the engine's log-probability of token {token} is {completion.logprobs[token]}"
    return replace(verdict, status=Status.ERROR, rewards={}, reward=None, detail=detail)


def first_unusable_token(completion: Completion) -> int | None:
    """Place of the first token whose log-probability is not finite, from 0."""
    places = np.flatnonzero(~np.isfinite(completion.logprobs))
    return int(places[0]) if len(places) else None


def unusable_warning(groups: Sequence[Group], step: int) -> str | None:
    """A sentence about the step's completions of this kind that says where they are, if there are any."""
    found = [
        f"problem {group.problem.index} (position {group.position}), sample {completion.sample}, token {token}"
        for group in groups
        for completion in group.completions
        if (token := first_unusable_token(completion)) is not None
    ]
    if not found:
        return None
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"step {step}: in {len(found)} completions the engine gave a log-probability that is not finite, so they are not "
        f"judged: {'; '.join(found[:_NAMED])}{more}"
    )
