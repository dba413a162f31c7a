"""Computes every step's advantages and loss again, from the recorded rewards and log-probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.losses import METRICS, LossInput, policy_loss
from openrs_ray.algorithm.updates import over_updates, shares
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun, Recorded, recorded
from openrs_ray.config.loss import Loss
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.step_settings import StepSettings

_ADVANTAGE = 1e-9
_ROUNDING = 2e-5
"""Of the mean size of what is summed: the learner sums in float32, here it is float64."""
FIGURES = (
    *("loss", "clipped_share", "kl", "mismatch_kl", "entropy", "ratio", "effective_sample_share"),
    *("truncated_weight_share", "masked_sequence_share", "completion_tokens"),
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


@dataclass(frozen=True)
class StepTokens:
    """A step as arrays; places are [groups, samples]."""

    rewards: np.ndarray
    advantages: np.ndarray
    """As recorded; NaN where left out of the loss."""
    sampler: list[list[np.ndarray]]
    """Log-probabilities of the sampled tokens."""
    learner: list[list[np.ndarray | None]] | None
    """None where the record has none of the step; of a rollout, where it adds nothing to the loss."""
    reference: list[list[np.ndarray | None]]

    @classmethod
    def of(cls, part: Recorded) -> "StepTokens":
        marks = [[rollout.sampled for rollout in group.rollouts] for group in part.groups]

        def column(name: str) -> list[list[np.ndarray | None]]:
            return [
                [_sampled(row[name], own) for row, own in zip(rows, several, strict=True)]
                for rows, several in zip(part.rows, marks, strict=True)
            ]

        learner = column("learner_logprobs")
        there = any(values is not None for several in learner for values in several)
        rows = [[row["advantage"] for row in several] for several in part.rows]
        values = np.array([[np.nan if one is None else one for one in several] for several in rows], dtype=np.float64)
        needed = there or not np.nan_to_num(values).any()
        sampler = [[r.logprobs[r.sampled] for r in group.rollouts] for group in part.groups]
        rewards = np.stack([group.rewards() for group in part.groups])
        return cls(rewards, values, sampler, learner if needed else None, column("reference_logprobs"))


def _sampled(values: list[float] | None, marks: np.ndarray) -> np.ndarray | None:
    """Values of the sampled tokens. ValueError, as NumPy has it, where there are not as many as tokens."""
    return None if values is None else np.array(values, dtype=np.float32)[marks]


def _advantage_faults(config: RunConfig, part: Recorded, found: np.ndarray) -> Iterator[str]:
    loss = config.loss
    rewards = np.stack([group.rewards() for group in part.groups])
    expected = advantages(rewards, loss.advantage_epsilon, divide_by_std=loss.kind != "dr_grpo")
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
    judged = [part for part in parts if not np.isnan(tokens.advantages[part]).all()]
    missing = [place for part in judged for place in _missing(config, loss, tokens, part)]
    if missing:
        group, sample = missing[0]
        yield (
            name,
            f"group {group} sample {sample} lacks the learner's log-probabilities, and {len(missing) - 1} more do",
        )
        return
    done = [_Update(config, loss, tokens, part).figures() for part in judged]
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
    size = scale if name == "loss" else abs(expected[name])
    slack = _ON_AN_EDGE / max(expected[_COUNTS[name]], 1.0) if name in _COUNTS else 0.0
    return abs(expected[name] - logged) <= _ROUNDING * size + slack + 1e-9


def _missing(config: RunConfig, loss: Loss, tokens: StepTokens, part: slice) -> list[tuple[int, int]]:
    """Rollouts of the loss that were not computed."""
    assert tokens.learner is not None
    learner, needed = tokens.learner, _computed(loss, tokens.advantages[part])
    places = [(int(group) + part.start, int(sample)) for group, sample in np.argwhere(needed)]
    return [
        (group, sample)
        for group, sample in places
        if learner[group][sample] is None or (loss.kl_beta > 0 and tokens.reference[group][sample] is None)
    ]


def _computed(loss: Loss, values: np.ndarray) -> np.ndarray:
    """bool [groups, samples]: what the learner computes. An advantage of 0 adds nothing, unless all tokens count."""
    everything = loss.normalization == "local_micro_batch" or loss.kl_beta > 0
    computed: np.ndarray = ~np.isnan(values) & (everything | (np.nan_to_num(values) != 0))
    return computed


@dataclass(frozen=True)
class _Update:
    """One optimizer step, computed in float64."""

    config: RunConfig
    loss: Loss
    tokens: StepTokens
    part: slice

    def figures(self) -> dict[str, float]:
        """As `LearnerRank._metrics` has them, and the mean size of a token's loss."""
        values = self.tokens.advantages[self.part]
        places = [(g + self.part.start, s) for g, s in np.argwhere(_computed(self.loss, values)).tolist()]
        sums, total, scale = dict.fromkeys(METRICS, 0.0), 0.0, 0.0
        for weight, members in self._micro_batches(places):
            output = policy_loss(self._input(members), self.loss)
            sums = {name: value + float(output.sums[name]) for name, value in sums.items()}
            total += weight * float(output.total)
            scale += weight * sum(
                abs(self.tokens.advantages[g, s]) * len(self.tokens.sampler[g][s]) for g, s in members
            )
        per_token = 1.0 / max(sums["tokens"], 1.0)
        return {
            "loss": total,
            "scale": scale,
            "clipped_share": sums["clipped"] * per_token,
            **{name: sums[name] * per_token for name in ("kl", "mismatch_kl", "entropy", "ratio")},
            "effective_sample_share": sums["ratio"] ** 2 * per_token / (sums["ratio_squared"] or 1.0),
            "truncated_weight_share": sums["truncated"] * per_token,
            "masked_sequence_share": sums["masked_sequences"] / max(sums["sequences"], 1.0),
            "completion_tokens": sums["tokens"],
            "sequences": sums["sequences"],
        }

    def _micro_batches(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """Members of each micro-batch and the factor of its summed loss; for most losses how they are split is no matter."""
        learned = np.argwhere(~np.isnan(self.tokens.advantages[self.part])).tolist()
        if self.loss.normalization == "local_micro_batch":
            yield from self._published(places)
            return
        allowed = len(learned) * self.config.rollout.max_completion_tokens
        tokens = sum(len(self.tokens.sampler[g + self.part.start][s]) for g, s in learned)
        whole = {"tokens": tokens, "sequences": len(learned), "constant": allowed}[self.loss.normalization]
        for place in places:
            yield 1.0 / whole, [place]

    def _published(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """Means of micro-batches of consecutive completions, as `packing.split` makes them."""
        size, samples = self.config.learner.micro_batch_sequences or 1, self.tokens.advantages.shape[1]
        bins: dict[int, list[tuple[int, int]]] = {}
        for group, sample in places:
            bins.setdefault(((group - self.part.start) * samples + sample) // size, []).append((group, sample))
        for members in bins.values():
            tokens = sum(len(self.tokens.sampler[g][s]) for g, s in members)
            yield 1.0 / (max(tokens, 1) * len(bins)), members

    def _input(self, members: Sequence[tuple[int, int]]) -> LossInput:
        assert self.tokens.learner is not None
        learner, reference = self.tokens.learner, self.tokens.reference
        sizes = tuple(len(self.tokens.sampler[g][s]) for g, s in members)
        values = [np.full(size, self.tokens.advantages[g, s]) for size, (g, s) in zip(sizes, members, strict=True)]
        return LossInput(
            logprobs=_joined([learner[g][s] for g, s in members]),
            behaviour_logprobs=_joined([self.tokens.sampler[g][s] for g, s in members]),
            # float32, as the learner is given them
            advantages=_joined([value.astype(np.float32) for value in values]),
            lengths=sizes,
            reference_logprobs=_joined([reference[g][s] for g, s in members]) if self.loss.kl_beta > 0 else None,
        )


def _joined(parts: Sequence[np.ndarray | None]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([part for part in parts if part is not None])).double()
