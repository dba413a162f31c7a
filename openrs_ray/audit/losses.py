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
    check, steps, read = Check("advantages and losses, computed again"), 0, 0
    unknown, distilled, older = list[int](), list[int](), set[int]()
    for part in recorded(run, ("train",)):
        step, name, read = part.file.step, run.name(part.file.path), read + 1
        config, found = run.settings(part.file.attempt), StepTokens.of(part)
        older |= set() if run.keeps_settings(part.file.attempt) else {part.file.attempt}
        for what in _advantage_faults(config, part, found.advantages):
            check.find(name, what, step)
        line = run.train_lines.get(step)
        if line is None:
            check.find("metrics.jsonl", "it has no line of a step that the record holds", step)
        elif config.loss.kind == "distill":
            distilled.append(step)
        elif (
            not found.scored and computed(StepSettings.recorded(line, config).loss(config.loss), found.advantages).any()
        ):
            unknown.append(step)
        else:
            steps += 1
            for file, what in _figure_faults(config, found, line, name, run.writes_all(line)):
                check.find(file, what, step)
        check.looked_at = f"advantages of {read} steps, losses of {steps}"
    if older:
        check.notes.append(
            f"the settings of attempt {', '.join(map(str, sorted(older)))} were not kept: those of config.json are taken"
        )
    if distilled:
        check.notes.append(
            "the record lacks what the teacher made of each token: losses of loss.kind distill are not computed"
        )
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
    config: RunConfig, tokens: StepTokens, line: Mapping[str, Any], name: str, complete: bool
) -> Iterator[tuple[str, str]]:
    """File and fault, where the learner's figures do not follow from the record.

    `complete`: the line must have all of them.
    """
    loss = StepSettings.recorded(line, config).loss(config.loss)
    parts = list(shares(len(tokens.advantages), config.learner.updates_per_batch))
    before = advantages(tokens.rewards, config.loss.advantage_epsilon, config.loss.advantage)
    judged = [part for part in parts if not np.isnan(before[part]).all()]
    missing = [place for part in judged for place in _missing(loss, tokens, part)]
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
        if figure not in line:
            if complete:
                yield "metrics.jsonl", f"{figure} is {expected[figure]:.9g} by the record, and the line lacks it"
        elif not _agree(figure, expected, line[figure], scale):
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
"""Of them, those that may lie so near to a bound that rounding decides."""
_NOT_RECORDED = {"packed_tokens": 0.0, "seconds": 0.0, "learning_rate": 0.0}
"""Figures of an update that the loss does not give."""


def _agree(name: str, expected: Mapping[str, float], logged: Any, scale: float) -> bool:
    if not isinstance(logged, int | float):
        return logged is None and not np.isfinite(expected[name])
    size = abs(expected[name]) + (scale if name == "loss" else 0.0)
    slack = _ON_AN_EDGE / max(expected[_COUNTS[name]], 1.0) if name in _COUNTS else 0.0
    return abs(expected[name] - logged) <= _ROUNDING * size + slack + 1e-9


def _missing(loss: Loss, tokens: StepTokens, part: slice) -> list[tuple[int, int]]:
    """Rollouts of the loss that were not computed."""
    learner, needed = tokens.learner, computed(loss, tokens.advantages[part])
    places = [(int(group) + part.start, int(sample)) for group, sample in np.argwhere(needed)]
    return [
        (group, sample)
        for group, sample in places
        if learner[group][sample] is None
        or (loss.kl_beta > 0 and tokens.reference[group][sample] is None)
        or (loss.entropy_weight > 0 and tokens.entropy[group][sample] is None)
    ]
