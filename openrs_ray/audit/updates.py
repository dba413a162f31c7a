"""One optimizer step of the learner, its loss and figures computed again in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openrs_ray.algorithm.losses import METRICS, LossInput, policy_loss
from openrs_ray.audit.tokens import StepTokens
from openrs_ray.config.loss import Loss
from openrs_ray.config.schema import RunConfig


def computed(loss: Loss, values: np.ndarray) -> np.ndarray:
    """bool [groups, samples]: what the learner computes. An advantage of 0 adds nothing, unless all tokens count."""
    everything = loss.normalization == "local_micro_batch" or loss.acts_everywhere
    computed: np.ndarray = ~np.isnan(values) & (everything | (np.nan_to_num(values) != 0))
    return computed


@dataclass(frozen=True)
class UpdateAgain:
    """One optimizer step, computed in float64."""

    config: RunConfig
    loss: Loss
    tokens: StepTokens
    part: slice

    def figures(self) -> dict[str, float]:
        """As `LearnerRank._metrics` has them, and the mean size of a token's loss."""
        values = self.tokens.advantages[self.part]
        places = [(g + self.part.start, s) for g, s in np.argwhere(computed(self.loss, values)).tolist()]
        sums, total, scale = dict.fromkeys(METRICS, 0.0), 0.0, 0.0
        for weight, members in self._micro_batches(places):
            output = policy_loss(self._input(members), self.loss)
            sums = {name: value + float(output.sums[name]) for name, value in sums.items()}
            total += weight * float(output.total)
            scale += weight * sum(abs(self.tokens.advantages[g, s]) * self._summed(g, s) for g, s in members)
        per_token = 1.0 / max(sums["tokens"], 1.0)
        return {
            "loss": total,
            "scale": scale,
            "clipped_share": sums["clipped"] * per_token,
            **{name: sums[name] * per_token for name in ("kl", "mismatch_kl", "entropy", "ratio")},
            "effective_sample_share": sums["ratio"] ** 2 * per_token / (sums["ratio_squared"] or 1.0),
            "truncated_weight_share": sums["truncated"] * per_token,
            "masked_token_share": sums["masked_tokens"] * per_token,
            "masked_sequence_share": sums["masked_sequences"] / max(sums["sequences"], 1.0),
            "completion_tokens": sums["tokens"],
            "sequences": sums["sequences"],
        }

    def _summed(self, group: int, sample: int) -> int:
        """Number of times that a rollout's advantage is in the sum: once a token, unless the loss divides by their number."""
        return 1 if self.loss.normalization == "sequences" else len(self.tokens.sampler[group][sample])

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
            yield 1.0 / max(whole, 1), [place]

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
        learner, reference, entropy = self.tokens.learner, self.tokens.reference, self.tokens.entropy
        sizes = tuple(len(self.tokens.sampler[g][s]) for g, s in members)
        values = [np.full(size, self.tokens.advantages[g, s]) for size, (g, s) in zip(sizes, members, strict=True)]
        return LossInput(
            logprobs=_joined([learner[g][s] for g, s in members]),
            behaviour_logprobs=_joined([self.tokens.sampler[g][s] for g, s in members]),
            # float32, as the learner is given them
            advantages=_joined([value.astype(np.float32) for value in values]),
            lengths=sizes,
            reference_logprobs=_joined([reference[g][s] for g, s in members]) if self.loss.kl_beta > 0 else None,
            entropies=_joined([entropy[g][s] for g, s in members]) if self.loss.entropy_weight > 0 else None,
        )


def _joined(parts: Sequence[np.ndarray | None]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([part for part in parts if part is not None])).double()
