"""Computes every step's advantages and loss again, from the recorded rewards and log-probabilities."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from openrs_ray.algorithm.advantages import advantages, without_truncated
from openrs_ray.algorithm.updates import over_updates, shares
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun, Recorded, recorded
from openrs_ray.audit.tokens import StepTokens
from openrs_ray.audit.updates import UpdateAgain, computed
from openrs_ray.config.loss import Loss
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.step_settings import StepSettings

_ADVANTAGE = 1e-9
_ROUNDING = 2e-5
"""Of the mean size of what is summed: the learner sums in float32, here it is float64."""
FIGURES = (
    *("loss", "clipped_share", "kl", "mismatch_kl", "entropy", "ratio", "effective_sample_share"),
    *("truncated_weight_share", "masked_token_share", "masked_sequence_share", "completion_tokens"),
)


def check_losses(run: AuditedRun) -> Check:
    check, steps, unknown = Check("advantages and losses, computed again"), 0, list[int]()
    for part in recorded(run, ("train",)):
        step, name = part.file.step, run.name(part.file.path)
        found = StepTokens.of(part)
        for what in _advantage_faults(run.config, part, found.advantages):
            check.find(name, what, step)
        line = run.train_lines.get(step)
        if line is None:
            check.find("metrics.jsonl", "it has no line of a step that the record holds", step)
        elif found.learner is None:
            unknown.append(step)
        else:
            steps += 1
            for file, what in _figure_faults(run.config, found, line, name):
                check.find(file, what, step)
        check.looked_at = f"advantages of {steps + len(unknown)} steps, losses of {steps}"
    if unknown:
        several = f"{len(unknown)} steps, the first of them {unknown[0]}"
        check.notes.append(
            f"the record lacks the learner's log-probabilities of {several}: their losses were not computed"
        )
    return check


def _advantage_faults(config: RunConfig, part: Recorded, found: np.ndarray) -> Iterator[str]:
    loss = config.loss
    rewards = np.stack([group.rewards() for group in part.groups])
    expected = advantages(rewards, loss.advantage_epsilon, loss.advantage)
    if loss.truncated_completions == "leave_out":
        expected = without_truncated(expected, part.groups)
    close = np.isclose(expected, found, rtol=_ADVANTAGE, atol=_ADVANTAGE, equal_nan=True)
    for group, sample in np.argwhere(~close).tolist():
        where = f"position {part.groups[group].position} sample {sample}"
        by_rewards, there = expected[group, sample], found[group, sample]
        yield f"{where}: the advantage is {by_rewards:.6g} by the rewards, and the record has {there:.6g}"


def _figure_faults(
    config: RunConfig, tokens: StepTokens, line: Mapping[str, Any], name: str
) -> Iterator[tuple[str, str]]:
    """File and fault, where the learner's figures do not follow from the record."""
    loss = StepSettings.recorded(line, config).loss(config.loss)
    parts = list(shares(len(tokens.advantages), config.learner.updates_per_batch))
    before = advantages(tokens.rewards, config.loss.advantage_epsilon, config.loss.advantage)
    judged = [part for part in parts if not np.isnan(before[part]).all()]
    missing = [place for part in judged for place in _missing(config, loss, tokens, part)]
    if missing:
        group, sample = missing[0]
        yield (
            name,
            f"group {group} sample {sample} lacks the learner's log-probabilities, and {len(missing) - 1} more do",
        )
        return
    done = [UpdateAgain(config, loss, tokens, part).figures() for part in judged]
    expected = done[0] if len(parts) == 1 else over_updates([known | _NOT_RECORDED for known in done])
    scale = float(np.mean([known["scale"] for known in done]))
    for figure in FIGURES:
        if figure in line and not _agree(figure, expected, line[figure], scale):
            yield (
                "metrics.jsonl",
                f"{figure} is {expected[figure]:.9g} by the record's log-probabilities, and the line has {line[figure]}",
            )


_COUNTS = {
    "clipped_share": "completion_tokens",
    "truncated_weight_share": "completion_tokens",
    "masked_token_share": "completion_tokens",
    "masked_sequence_share": "sequences",
}
"""Shares of counted tokens or sequences."""
_ON_AN_EDGE = 2.0
"""So many of them may lie so near to a bound that rounding decides."""
_NOT_RECORDED = {"packed_tokens": 0.0, "seconds": 0.0, "learning_rate": 0.0}
"""Figures of an update that are no matter of the loss."""


def _agree(name: str, expected: Mapping[str, float], logged: Any, scale: float) -> bool:
    if not isinstance(logged, int | float):
        return logged is None and not np.isfinite(expected[name])
    size = abs(expected[name]) + (scale if name == "loss" else 0.0)
    slack = _ON_AN_EDGE / max(expected[_COUNTS[name]], 1.0) if name in _COUNTS else 0.0
    return abs(expected[name] - logged) <= _ROUNDING * size + slack + 1e-9


def _missing(config: RunConfig, loss: Loss, tokens: StepTokens, part: slice) -> list[tuple[int, int]]:
    """Rollouts of the loss that were not computed."""
    assert tokens.learner is not None
    learner, needed = tokens.learner, computed(loss, tokens.advantages[part])
    places = [(int(group) + part.start, int(sample)) for group, sample in np.argwhere(needed)]
    return [
        (group, sample)
        for group, sample in places
        if learner[group][sample] is None
        or (loss.kl_beta > 0 and tokens.reference[group][sample] is None)
        or (loss.entropy_weight > 0 and tokens.entropy[group][sample] is None)
    ]
