"""Advantages and losses computed again: equal to formulas written out in float64, and different after any change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited_run import audited_run
from tampering import line, row
from whole_run import rewrite

from openrs_ray.audit.losses import check_losses
from openrs_ray.audit.run import AuditedRun, recorded
from openrs_ray.audit.tokens import StepTokens


def shifted(values: list[float]) -> list[float]:
    return [value - 0.01 for value in values]


TAMPERED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "an advantage": (lambda run: row(run, 2, "advantage", lambda a: a + 0.01), "train-step-000002", "the advantage is"),
    "a reward": (lambda run: row(run, 2, "reward", lambda r: r + 0.5), "train-step-000002", "the advantage is"),
    "the sampler's": (lambda run: row(run, 2, "logprobs", shifted), "metrics.jsonl", "mismatch_kl is"),
    "the learner's": (lambda run: row(run, 2, "learner_logprobs", shifted), "metrics.jsonl", "entropy is"),
    "the reference's": (lambda run: row(run, 2, "reference_logprobs", shifted), "metrics.jsonl", "kl is"),
    "a loss": (
        lambda run: line(run, "metrics.jsonl", 3, lambda x: x | {"loss": x["loss"] + 1e-4}),
        "metrics.jsonl",
        "loss is",
    ),
    "a weight of the penalty": (
        lambda run: line(run, "metrics.jsonl", 3, lambda x: x | {"setting/kl_beta": 0.05}),
        "metrics.jsonl",
        "loss is",
    ),
    "what was not computed": (
        lambda run: row(run, 2, "learner_logprobs", lambda values: None),
        "train-step-000002",
        "lacks the learner's",
    ),
}


def test_the_figures_of_an_untouched_run_follow_from_its_record(audited: Path) -> None:
    check = check_losses(AuditedRun.read(audited))
    assert check.state == "whole" and check.looked_at == "advantages of 3 steps, losses of 3" and check.notes == []


@pytest.mark.parametrize("what", TAMPERED)
def test_a_change_is_found_in_its_step(what: str, copied: Path) -> None:
    tamper, file, said = TAMPERED[what]
    tamper(copied)
    findings = check_losses(AuditedRun.read(copied)).findings
    assert {finding.step for finding in findings} == {2}
    assert any(file in finding.file and said in finding.what for finding in findings), findings


def test_a_step_whose_learner_was_lost_is_said(copied: Path) -> None:
    nothing = dict.fromkeys(("learner_logprobs", "reference_logprobs"))
    rewrite(copied, 2, lambda rows: [each.update(nothing) for each in rows])
    check = check_losses(AuditedRun.read(copied))
    assert check.findings == [] and check.looked_at == "advantages of 3 steps, losses of 2"
    assert "lacks the learner's log-probabilities of 1 steps, the first of them 2" in check.notes[0]


def test_the_published_mean_over_micro_batches_depends_on_how_the_step_was_split(tmp_path: Path) -> None:
    """The maker's own loss is a mean over all tokens: with micro-batches of one completion it is another one."""
    run = audited_run(tmp_path, loss={"normalization": "local_micro_batch"}, learner={"micro_batch_sequences": 8})
    per_completion = []
    record = AuditedRun.read(run)
    size = 8
    for part in recorded(record, ("train",)):
        tokens = StepTokens.of(part)
        flat = list(np.ndindex(tokens.advantages.shape))
        bins = [flat[start : start + size] for start in range(0, len(flat), size)]
        means = [np.mean(np.concatenate([_token_losses(tokens, place) for place in members])) for members in bins]
        per_completion.append(float(np.mean(means)))
    wrong = {f.step: f.what for f in check_losses(record).findings}
    assert wrong.keys() == {1, 2, 3}
    for step, mean in enumerate(per_completion, start=1):
        assert wrong[step].startswith("loss is") and float(wrong[step].split()[2]) == pytest.approx(mean, rel=1e-6)


def _token_losses(tokens: Any, place: tuple[int, int]) -> np.ndarray:
    group, sample = place
    policy, reference = (np.float64(part[group][sample]) for part in (tokens.learner, tokens.reference))
    ratio, advantage = np.exp(policy - np.float64(tokens.sampler[group][sample])), tokens.advantages[place]
    kl = np.exp(reference - policy) - (reference - policy) - 1
    found: np.ndarray = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage) + 0.04 * kl
    return found
