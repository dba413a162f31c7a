"""Scores a sample of completions again, with the checkpoint of the policy that sampled them."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Decoder
from openrs_ray.models.pretrained import read_model, read_tokenizer
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.completions import SCHEMA

_POSITIONS = 512
"""Positions of a completion whose logits are computed together."""
_COLUMNS = [
    "temperature",
    "position",
    "sample",
    "prompt",
    "token_ids",
    "sampled",
    "logprobs",
    "learner_logprobs",
    "versions",
]


def check_scores(run: AuditedRun, each: int, seed: int | None = None) -> Check:
    """Score again `each` completions of every kept policy, drawn by `seed` (None: by one that nobody knows before).

    As in a push's probe, the mean difference per token over the completions of a file must be within `push.probe_tolerance`.
    """
    check, done, fit, largest = Check("log-probabilities, scored again"), 0, 0, 0.0
    seed = secrets.randbits(32) if seed is None else seed
    limits = set[float]()
    for step, checkpoint in sorted(run.policies.items()):
        by_file, several = _drawn(run, step, each, seed)
        fit += several
        scorer = Scorer.read(checkpoint.policy, run.config.model.dtype) if by_file else None
        for sampled in by_file:
            limit = sampled[0].tolerance
            limits.add(limit)
            scored = [(one, scorer.differences(one)) for one in sampled] if scorer else []
            done += sum(bool(differences) for _, differences in scored)
            for whose in ("sampler", "learner"):
                parts = [(one, differences[whose]) for one, differences in scored if whose in differences]
                mean = float(np.concatenate([part for _, part in parts]).mean()) if parts else 0.0
                largest = max(largest, mean)
                if not mean <= limit:  # NaN fails too
                    worst, _ = max(parts, key=lambda part: float(np.nan_to_num(part[1], nan=np.inf).mean()))
                    _find(check, run, checkpoint.policy, worst, whose, mean)
    if done:
        allowed = " or ".join(f"{limit:g}" for limit in sorted(limits))
        of_all = f"{done} completions, kept policies: {len(run.policies)}"
        check.looked_at = f"{of_all}; mean difference at most {largest:.2g}, allowed {allowed}"
        check.notes.append(
            f"drawn by --seed {seed} from {fit:,} completions that kept policies sampled: {fit - done:,} were not scored again"
        )
    else:
        check.notes.append(
            "the record has no completion that a kept policy sampled whole, with a prompt that becomes the same tokens again"
        )
    return check


@dataclass(frozen=True)
class Sampled:
    """One recorded completion."""

    name: str
    """Of its file."""
    step: int
    row: dict[str, Any]
    temperature: float
    """At which the log-probabilities were taken."""
    tolerance: float
    """`push.probe_tolerance` of its attempt."""


def _drawn(run: AuditedRun, step: int, each: int, seed: int) -> tuple[list[list[Sampled]], int]:
    """Completions that policy `step` sampled from first token to last: in training, and in its evaluation.

    Returns some of them, by file, and how many there are.
    """
    files = [file for file in run.files(("train", "evaluation")) if _sampled_by(run, file, step)]
    share = -(-each // max(len(files), 1))
    drawn = [_rows(run, file, step, share, seed) for file in files]
    return [sampled for sampled, _ in drawn if sampled], sum(fit for _, fit in drawn)


def _sampled_by(run: AuditedRun, file: RecordFile, step: int) -> bool:
    """True for a file that may hold completions of policy `step`, with log-probabilities."""
    config = run.settings(file.attempt)
    if file.phase == "evaluation":
        return file.step == step and bool(config.evaluation.temperature)
    return step < file.step <= step + 1 + config.rollout.staleness


def _rows(run: AuditedRun, file: RecordFile, step: int, count: int, seed: int) -> tuple[list[Sampled], int]:
    """Up to `count` completions of the file, and how many fit."""
    config, table = run.settings(file.attempt), file.read(_COLUMNS, SCHEMA)
    told = table.select(["prompt", "versions"]).to_pylist()
    fit = [
        place
        for place, row in enumerate(told)
        if row["prompt"] and {span["version"] for span in row["versions"]} == {step}
    ]
    order = np.random.default_rng([seed, step, file.step]).permutation(len(fit))[:count]
    rows = table.take(pa.array([fit[place] for place in order], pa.int64())).to_pylist()
    if config.learner.updates_per_batch > 1 or file.step != step + 1:  # the learner was another policy by then
        rows = [row | {"learner_logprobs": None} for row in rows]
    name, limit = run.name(file.path), config.push.probe_tolerance
    return [Sampled(name, file.step, row, _temperature(config, file, row), limit) for row in rows], len(fit)


def _temperature(config: RunConfig, file: RecordFile, row: Mapping[str, Any]) -> float:
    """Temperature of the log-probabilities: of the stage in which a completion was sampled, where they are tempered."""
    if not config.loss.tempered:
        return 1.0
    whole = config.evaluation.temperature if file.phase == "evaluation" else config.logprob_temperature
    return row["temperature"] or whole


@dataclass(frozen=True)
class Scorer:
    """A policy as transformers reads it, on the CPU."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def read(cls, policy: Path, dtype: str) -> "Scorer":
        """UserError where the folder cannot be used."""
        logging.disable_progress_bar()
        model = read_model(str(policy), getattr(torch, dtype), "sdpa").eval()
        return cls(model, read_tokenizer(str(policy)))

    def prompt(self, text: str) -> list[int] | None:
        """Token ids of a prompt's text; None where they do not say the same."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if ids and Decoder.of(self.tokenizer).decode([ids]) == [text] else None

    def differences(self, sampled: Sampled) -> dict[str, np.ndarray]:
        """Distances [sampled tokens] of the recorded log-probabilities, by who computed them; none of an unknown prompt."""
        row, prompt = sampled.row, self.prompt(sampled.row["prompt"])
        if prompt is None:
            return {}
        marks = np.ones(len(row["token_ids"]), np.bool_) if row["sampled"] is None else np.array(row["sampled"])
        own = self.logprobs(prompt, row["token_ids"], sampled.temperature)[marks]
        known = {"sampler": row["logprobs"], "learner": row["learner_logprobs"]}
        there = {whose: values for whose, values in known.items() if values is not None}
        return {whose: np.abs(np.array(values, dtype=np.float64)[marks] - own) for whose, values in there.items()}

    @torch.no_grad()
    def logprobs(self, prompt: Sequence[int], completion: Sequence[int], temperature: float) -> np.ndarray:
        """float64 [tokens] of a completion; logits in the model's format, softmax in float32.

        The head and the softmax go over a few positions at a time: with all of them, the logits would need more memory than the
        model.
        """
        ids = torch.tensor([*prompt, *completion])
        hidden = self.model.base_model(ids[None], use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        head = self.model.get_output_embeddings()
        parts = [
            (head(some).float() / temperature).log_softmax(-1).gather(-1, chosen[:, None])[:, 0].double()
            for some, chosen in zip(hidden.split(_POSITIONS), ids[len(prompt) :].split(_POSITIONS), strict=True)
        ]
        found: np.ndarray = torch.cat(parts).numpy()
        return found


def _find(check: Check, run: AuditedRun, policy: Path, worst: Sampled, whose: str, mean: float) -> None:
    where = f"position {worst.row['position']} sample {worst.row['sample']}"
    apart = f"the {whose}'s log-probabilities are {mean:.3g} per token from those of {run.name(policy)}"
    check.find(worst.name, f"{apart}, most in {where}; push.probe_tolerance allows {worst.tolerance:g}", worst.step)
