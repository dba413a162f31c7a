"""Recorded log-probabilities against the policies that were kept: another policy's weights are found, by checkpoint."""

from pathlib import Path

import pytest
from tampering import content, swapped

from openrs_ray.audit.run import AuditedRun
from openrs_ray.audit.scores import check_scores


def weights(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}" / "policy" / "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_policies_give_the_recorded_log_probabilities(copied: Path, dtype: str) -> None:
    tolerance = {"float32": 1e-3, "bfloat16": 0.05}[dtype]
    content(copied, "config.json", lambda known: known["model"].update(dtype=dtype))
    content(copied, "config.json", lambda known: known["push"].update(probe_tolerance=tolerance))
    check = check_scores(AuditedRun.read(copied), each=6)
    assert check.state == "whole" and check.looked_at.startswith("18 completions of 3 policies"), check.findings


def test_the_weights_of_another_step_are_found(copied: Path) -> None:
    swapped(weights(copied, 1), weights(copied, 2))
    findings = check_scores(AuditedRun.read(copied), each=6).findings
    assert {(f.step, f.what.split(" are ")[0]) for f in findings} == {
        (1, "the sampler's log-probabilities"),  # the evaluation of policy 1
        (2, "the sampler's log-probabilities"),  # step 2, sampled by policy 1, and the evaluation of policy 2
        (2, "the learner's log-probabilities"),
        (3, "the sampler's log-probabilities"),
        (3, "the learner's log-probabilities"),
    }
    assert all("/policy" in finding.what for finding in findings)
