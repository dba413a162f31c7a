"""Scores a sample of completions again, with the checkpoint of the policy that sampled them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun
from openrs_ray.common.foreign import reading
from openrs_ray.models.pretrained import read_tokenizer
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.completions import SCHEMA

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


def check_scores(run: AuditedRun, each: int) -> Check:
    """Score again `each` completions of every kept policy.

    As in a push's probe, the mean difference per token over the completions of a file must be within `push.probe_tolerance`.
    """
    check, done, largest = Check("log-probabilities, scored again"), 0, 0.0
    for step, checkpoint in sorted(run.policies.items()):
        by_file = _drawn(run, step, each)
        scorer = Scorer.read(checkpoint.policy, run.config.model.dtype) if by_file else None
        for sampled in by_file:
            scored = [(one, scorer.differences(one)) for one in sampled] if scorer else []
            done += sum(bool(differences) for _, differences in scored)
            for whose in ("sampler", "learner"):
                parts = [(one, differences[whose]) for one, differences in scored if whose in differences]
                mean = float(np.concatenate([part for _, part in parts]).mean()) if parts else 0.0
                largest = max(largest, mean)
                if not mean <= run.config.push.probe_tolerance:  # NaN fails too
                    worst, _ = max(parts, key=lambda part: float(np.nan_to_num(part[1], nan=np.inf).mean()))
                    _find(check, run, checkpoint.policy, worst, whose, mean)
    limit = run.config.push.probe_tolerance
    if done:
        policies = len(run.policies)
        check.looked_at = (
            f"{done} completions of {policies} policies; mean difference at most {largest:.2g}, allowed {limit:g}"
        )
    else:
        check.notes.append("the record has no completion of a kept policy whose prompt becomes the same tokens again")
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


def _drawn(run: AuditedRun, step: int, each: int) -> list[list[Sampled]]:
    """By file, completions that policy `step` sampled from first token to last: half in training, half in its evaluation."""
    config = run.config
    evaluated = config.evaluation.temperature if config.loss.tempered else 1.0
    after = {file.step: file for file in run.files(("train",))}.get(step + 1)
    own = {file.step: file for file in run.files(("evaluation",))}.get(step)
    sources = [(after, config.logprob_temperature), (own, evaluated if config.evaluation.temperature else 0.0)]
    usable = [(file, temperature) for file, temperature in sources if file is not None and temperature > 0]
    drawn = (_rows(run, file, step, temperature, -(-each // len(usable))) for file, temperature in usable)
    return [sampled for sampled in drawn if sampled]


def _rows(run: AuditedRun, file: RecordFile, step: int, temperature: float, count: int) -> list[Sampled]:
    rows = file.read(_COLUMNS, SCHEMA).to_pylist()
    fit = [row for row in rows if row["prompt"] and {span["version"] for span in row["versions"]} == {step}]
    if run.config.learner.updates_per_batch > 1:  # of later updates the policy is another one
        fit = [row | {"learner_logprobs": None} for row in fit]
    order = np.random.default_rng(step).permutation(len(fit))[:count]
    return [
        Sampled(run.name(file.path), file.step, fit[place], _own_temperature(run, fit[place], temperature))
        for place in order
    ]


def _own_temperature(run: AuditedRun, row: dict[str, Any], otherwise: float) -> float:
    """That of the stage in which a completion was sampled."""
    return row["temperature"] if run.config.loss.tempered and row["temperature"] else otherwise


@dataclass(frozen=True)
class Scorer:
    """A policy as transformers reads it, on the CPU."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def read(cls, policy: Path, dtype: str) -> "Scorer":
        """UserError where the folder cannot be used."""
        with reading(f"the policy in {policy} cannot be read"):
            model = AutoModelForCausalLM.from_pretrained(
                policy, dtype=getattr(torch, dtype), local_files_only=True
            ).eval()
        return cls(model, read_tokenizer(str(policy)))

    def prompt(self, text: str) -> list[int] | None:
        """Token ids of a prompt's text; None where they do not say the same."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if ids and self.tokenizer.decode(ids, skip_special_tokens=False) == text else None

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
        """float64 [tokens] of a completion; logits in the model's format, softmax in float32."""
        ids = torch.tensor([*prompt, *completion])
        logits = self.model(ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].float() / temperature
        chosen: np.ndarray = logits.log_softmax(-1).gather(-1, ids[len(prompt) :, None])[:, 0].double().numpy()
        return chosen


def _find(check: Check, run: AuditedRun, policy: Path, worst: Sampled, whose: str, mean: float) -> None:
    limit = run.config.push.probe_tolerance
    where = f"position {worst.row['position']} sample {worst.row['sample']}"
    apart = f"the {whose}'s log-probabilities are {mean:.3g} per token from those of {run.name(policy)}"
    check.find(worst.name, f"{apart}, most in {where}; push.probe_tolerance allows {limit:g}", worst.step)
