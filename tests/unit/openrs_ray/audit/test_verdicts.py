"""Every completion is judged again: a verdict, a text or a reward that was changed is found, however the chain was made anew."""

from pathlib import Path

from tampering import row

from openrs_ray.audit.run import AuditedRun
from openrs_ray.audit.verdicts import check_verdicts
from openrs_ray.records import Status


def other_status(status: str) -> str:
    return "wrong" if status == "correct" else "correct"


def test_changed_verdicts_texts_rewards_and_answers_are_found_and_timeouts_told_apart(copied: Path) -> None:
    row(copied, 1, "status", other_status)
    row(copied, 1, "text", lambda text: text.replace("boxed", "boxes"), place=6)
    row(copied, 2, "rewards", lambda known: [(name, value + 0.5) for name, value in known], place=3)
    row(copied, 2, "reward", lambda value: value + 0.25, place=9)
    row(copied, 3, "answer", lambda answer: "77", place=2)
    row(copied, 3, "status", other_status, "evaluation", place=4)
    row(copied, 3, "status", lambda status: str(Status.TIMEOUT), place=5)
    row(copied, 3, "reward", lambda value: None, place=5)
    row(copied, 3, "rewards", lambda known: [], place=5)
    check = check_verdicts(AuditedRun.read(copied), processes=1)
    found = {(finding.file.partition("-attempt")[0], finding.what.partition(" is ")[0]) for finding in check.findings}
    assert found == {
        ("completions/train-step-000001", "position 0 sample 1: the verdict"),
        ("completions/train-step-000001", "position 1 sample 2: the text"),
        ("completions/train-step-000002", "position 4 sample 3: the reward accuracy"),
        ("completions/train-step-000002", "position 6 sample 1: the weighted reward"),
        ("completions/train-step-000003", "position 8 sample 2: the answer"),
        ("completions/evaluation-step-000003", "position 2 sample 0: the verdict"),
    }
    assert check.notes == ["1 checks ended as timeout then (1 of them are judged now): not compared"]
    assert check.looked_at == "88 completions, 88 texts decoded again"
