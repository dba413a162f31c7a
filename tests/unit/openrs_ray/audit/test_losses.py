"""Advantages and losses computed again: equal to formulas written out in float64, and different after any change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited_run import audited_run
from tampering import content, line, row
from whole_run import rewrite

from openrs_ray.audit.losses import check_losses
from openrs_ray.audit.run import AuditedRun, recorded
from openrs_ray.audit.tokens import StepTokens
from openrs_ray.audit.updates import UpdateAgain


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


def set_loss(run: Path, name: str, **changes: Any) -> None:
    content(run, name, lambda known: known["loss"].update(changes))


def test_settings_that_a_later_attempt_has_changed_are_not_those_of_the_steps_before(copied: Path) -> None:
    """The loss of a run may change at a resume: the steps of the first attempt had the first one."""
    changed = {"normalization": "sequences"}
    set_loss(copied, "config.json", **changed)
    assert check_losses(AuditedRun.read(copied)).findings == []
    set_loss(copied, "attempts/001/config.json", **changed)
    assert {finding.step for finding in check_losses(AuditedRun.read(copied)).findings} == {1, 2, 3}


def test_an_attempt_that_kept_no_settings_is_said(copied: Path) -> None:
    (copied / "attempts" / "001" / "config.json").unlink()
    check = check_losses(AuditedRun.read(copied))
    assert check.findings == [] and "the settings of attempt 1 were not kept" in check.notes[0]


@pytest.mark.parametrize("normalization", ["tokens", "sequences"])
def test_the_tolerance_is_of_what_is_summed(copied: Path, normalization: str) -> None:
    """With a mean over each completion's tokens a loss is of the size of an advantage, and not of a whole completion's."""
    set_loss(copied, "attempts/001/config.json", normalization=normalization)
    (first, *_) = recorded(AuditedRun.read(copied), ("train",))
    tokens, config = StepTokens.of(first), AuditedRun.read(copied).settings(1)
    everything = slice(0, len(tokens.advantages))
    scale = UpdateAgain(config, config.loss, tokens, everything).figures()["scale"]
    sizes = np.array([[len(values) for values in several] for several in tokens.sampler])
    size = np.abs(tokens.advantages)
    mean = size.mean() if normalization == "sequences" else np.average(size, weights=sizes)
    assert scale == pytest.approx(mean, rel=1e-12)


def test_a_loss_of_sequences_that_is_a_little_off_is_found(copied: Path) -> None:
    """The learner's mean over sequences of the mean over tokens, in float64; then a ten-thousandth more."""
    set_loss(copied, "attempts/001/config.json", kind="gspo", normalization="sequences")
    expected = {}
    for finding in check_losses(AuditedRun.read(copied)).findings:
        if finding.what.startswith("loss is"):
            expected[finding.step] = float(finding.what.split()[2])
    assert expected.keys() == {1, 2, 3}

    def with_losses(more: float) -> list[int | None]:
        for step, loss in expected.items():
            place = 2 * (step or 0) - 1
            line(copied, "metrics.jsonl", place, lambda known, loss=loss: known | {"loss": loss + more})
        return [f.step for f in check_losses(AuditedRun.read(copied)).findings if f.what.startswith("loss is")]

    assert with_losses(0.0) == [] and with_losses(1e-4) == [1, 2, 3]


def test_a_figure_that_was_removed_is_missed(copied: Path) -> None:
    line(copied, "metrics.jsonl", 3, lambda known: {name: value for name, value in known.items() if name != "kl"})
    (finding,) = check_losses(AuditedRun.read(copied)).findings
    assert finding.step == 2 and finding.what.startswith("kl is") and finding.what.endswith("the line lacks it")


def test_of_a_distilled_run_the_advantages_are_looked_at(copied: Path) -> None:
    teacher = {"path": "toy-teacher"}
    set_loss(copied, "attempts/001/config.json", kind="distill", teacher=teacher)
    check = check_losses(AuditedRun.read(copied))
    assert check.looked_at == "advantages of 3 steps, losses of 0" and check.state == "whole", check.findings
    assert "losses of loss.kind distill are not computed" in check.notes[0]


@pytest.mark.parametrize(("beta", "losses"), [(0.04, 2), (0.0, 3)])
def test_a_step_without_spread_whose_record_has_nothing_of_the_learner(copied: Path, beta: float, losses: int) -> None:
    """With a penalty, a step of zero advantages has a loss: it is not known. Without one there was nothing to compute."""
    set_loss(copied, "attempts/001/config.json", kl_beta=beta)
    nothing: dict[str, Any] = dict.fromkeys(("learner_logprobs", "reference_logprobs"))
    rewrite(copied, 2, lambda rows: [each.update(nothing | {"advantage": 0.0, "reward": 1.0}) for each in rows])
    zero = dict.fromkeys(("loss", "kl", "mismatch_kl", "entropy", "ratio", "completion_tokens"), 0.0)
    zero |= {"effective_sample_share": 0.0, "setting/kl_beta": beta}
    line(copied, "metrics.jsonl", 3, lambda known: known | zero)
    check = check_losses(AuditedRun.read(copied))
    assert [finding for finding in check.findings if finding.step == 2] == [], check.findings
    assert check.looked_at == f"advantages of 3 steps, losses of {losses}"
