"""Recorded log-probabilities against the policies that were kept: another policy's weights are found, by checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tampering import content, swapped

from openrs_ray.audit import scores
from openrs_ray.audit.run import AuditedRun
from openrs_ray.audit.scores import Scorer, _rows, check_scores


def weights(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}" / "policy" / "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_policies_give_the_recorded_log_probabilities(copied: Path, dtype: str) -> None:
    tolerance = {"float32": 1e-3, "bfloat16": 0.05}[dtype]
    content(copied, "config.json", lambda known: known["model"].update(dtype=dtype))
    content(copied, "attempts/001/config.json", lambda known: known["push"].update(probe_tolerance=tolerance))
    check = check_scores(AuditedRun.read(copied), each=6)
    assert check.state == "whole" and check.looked_at.startswith("18 completions, kept policies: 3"), check.findings
    assert check.looked_at.endswith(f"allowed {tolerance:g}")


def test_nobody_knows_before_which_completions_are_scored_and_the_seed_draws_them_again(audited: Path) -> None:
    run = AuditedRun.read(audited)
    files = [file for file in run.files(("train",)) if file.step == 2]

    def places(seed: int) -> list[tuple[int, int]]:
        ((drawn, fit),) = (_rows(run, file, 1, 6, seed) for file in files)
        assert fit == 16
        return [(one.row["position"], one.row["sample"]) for one in drawn]

    assert places(5) == places(5) and len({tuple(places(seed)) for seed in range(5)}) == 5
    seeds = [check_scores(run, each=1).notes[0].split()[3] for _ in range(2)]
    assert seeds[0] != seeds[1]
    # Policies 1 and 2 sampled a step of 16 and an evaluation of 10, policy 3 an evaluation.
    (note,) = check_scores(run, each=6, seed=5).notes
    assert note == "drawn by --seed 5 from 62 completions that kept policies sampled: 44 were not scored again"


def test_logits_of_a_few_positions_at_a_time_are_those_of_all(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer.read(weights(audited, 1).parent, "float32")
    prompt, completion = [5, 6, 7], [8, 9, 10, 11, 12, 13, 14]
    with torch.no_grad():
        logits = scorer.model(torch.tensor([prompt + completion])).logits[0].double() / 0.7
    whole = logits.log_softmax(-1)[torch.arange(2, 9), torch.tensor(completion)]
    monkeypatch.setattr(scores, "_POSITIONS", 3)
    assert scorer.logprobs(prompt, completion, 0.7) == pytest.approx(whole.numpy(), abs=1e-5)


def test_a_prompt_that_its_text_does_not_give_again_is_left_out(audited: Path) -> None:
    scorer, run = Scorer.read(weights(audited, 1).parent, "float32"), AuditedRun.read(audited)
    ((drawn, _),) = (_rows(run, file, 1, 1, 5) for file in run.files(("train",)) if file.step == 2)
    (sampled,) = drawn
    assert scorer.differences(sampled)
    for text in ("", sampled.row["prompt"] + "\N{SNOWMAN}"):
        assert scorer.prompt(text) is None
        assert scorer.differences(replace(sampled, row=sampled.row | {"prompt": text})) == {}


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
