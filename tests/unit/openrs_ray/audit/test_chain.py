"""Whatever is changed in a finished run, the chain of digests names the file and, where it has one, the step."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tampering import byte, content, line, planted, record_file, remade, row, swapped

from openrs_ray.audit import chain_files
from openrs_ray.audit.chain import check_chain
from openrs_ray.audit.findings import Finding
from openrs_ray.common.files import append_line, write_json
from openrs_ray.report.static import write_page
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.ledger import Ledger, note_beside, note_evaluation, read_ledger
from openrs_ray.run.lock import run_lock

MANIFEST = "checkpoints/manifest.json"
POLICY = "checkpoints/step-000002/policy"
REPORT = "evaluation/robust/audited-step-3"

Tamper = Callable[[Path], Any]


def forget(first: int, last: int | None = None) -> Tamper:
    """Remove lines of the ledger."""

    def change(run: Path) -> None:
        lines = (run / "ledger").read_text().splitlines(keepends=True)
        lines[first:last] = []
        (run / "ledger").write_text("".join(lines))

    return change


def other_status(status: str) -> str:
    return "wrong" if status == "correct" else "correct"


def other_record(run: Path) -> None:
    other = run.parent / "other"
    (other / "completions").mkdir(parents=True)
    (other / "attempts.jsonl").write_bytes((run / "attempts.jsonl").read_bytes())
    file = record_file(run, 2)
    (other / "completions" / file.name).write_bytes(file.read_bytes())
    row(other, 2, "text", lambda text: "another run's")
    planted(run, other, 2)


def manifest(known: dict[str, Any]) -> None:
    known["checkpoints"][1]["files"][0]["crc32"] += 1


TAMPERED: dict[str, tuple[Tamper, str, int | None]] = {
    "a verdict": (lambda run: row(run, 2, "status", other_status), "completions/train-step-000002", 2),
    "a text": (lambda run: row(run, 2, "text", lambda text: text + "!"), "completions/train-step-000002", 2),
    "a reward": (lambda run: row(run, 1, "reward", lambda value: value + 1), "completions/train-step-000001", 1),
    "a log-probability": (
        lambda run: row(run, 3, "logprobs", lambda v: [-9.0, *v[1:]]),
        "completions/train-step-000003",
        3,
    ),
    "a held-out verdict": (
        lambda run: row(run, 3, "status", other_status, "evaluation"),
        "completions/evaluation-step-000003",
        3,
    ),
    "a byte of the record": (lambda run: byte(record_file(run, 1)), "completions/train-step-000001", 1),
    "a step's file, deleted": (lambda run: record_file(run, 2).unlink(), "completions/train-step-000002", 2),
    "two steps, swapped": (
        lambda run: swapped(record_file(run, 1), record_file(run, 2)),
        "completions/train-step-000001",
        1,
    ),
    "another run's record": (other_record, "completions/train-step-000002", 2),
    "a planted file": (
        lambda run: (run / "completions" / "train-step-000009-attempt-001-00000000.parquet").write_bytes(b"x"),
        "completions/train-step-000009",
        9,
    ),
    "a figure": (lambda run: line(run, "metrics.jsonl", 1, lambda known: known | {"reward": 3.0}), "metrics.jsonl", 1),
    "a line of figures, deleted": (lambda run: line(run, "metrics.jsonl", 2, lambda known: None), "metrics.jsonl", 2),
    "an attempt": (
        lambda run: line(run, "attempts.jsonl", 0, lambda known: known | {"from_step": 1}),
        "attempts.jsonl",
        None,
    ),
    "a decision": (lambda run: line(run, "decisions.jsonl", 0, lambda known: None), "decisions.jsonl", None),
    "a setting": (
        lambda run: content(run, "config.json", lambda known: known["run"].update(seed=7)),
        "config.json",
        None,
    ),
    "the problems": (
        lambda run: content(run, "problems.json", lambda known: known.update(fingerprint="0")),
        "problems.json",
        None,
    ),
    "the outcome": (
        lambda run: content(run, "result.json", lambda known: known["after"].update(low=0.7)),
        "result.json",
        None,
    ),
    "the manifest": (lambda run: content(run, MANIFEST, manifest), MANIFEST, None),
    "the weights": (lambda run: byte(run / POLICY / "model.safetensors"), f"{POLICY}/model.safetensors", 2),
    "how to prompt": (lambda run: byte(run / POLICY / "prompt.json"), f"{POLICY}/prompt.json", 2),
    "a checkpoint's file, deleted": (
        lambda run: (run / POLICY / "model.safetensors").unlink(),
        f"{POLICY}/model.safetensors",
        2,
    ),
    "a checkpoint's file, planted": (
        lambda run: (run / POLICY / "more.bin").write_bytes(b"x"),
        f"{POLICY}/more.bin",
        2,
    ),
    "the user's code": (lambda run: byte(run / "code" / "my_rewards.py", 5), "code/my_rewards.py", None),
    "the code's version": (
        lambda run: content(run, "attempts/001/environment.json", lambda known: known.update(code_sha256="0")),
        "attempts/001/environment.json",
        None,
    ),
    "a report's interval": (
        lambda run: content(run, f"{REPORT}/report.json", lambda known: known["models"].popitem()),
        f"{REPORT}/report.json",
        None,
    ),
    "a benchmark's completions": (
        lambda run: byte(run / REPORT / "sums-000000.parquet"),
        f"{REPORT}/sums-000000.parquet",
        None,
    ),
    "an evaluation, deleted": (
        lambda run: (run / REPORT / "sums-000000.parquet").unlink(),
        f"{REPORT}/sums-000000.parquet",
        None,
    ),
    "an entry in the middle": (
        lambda run: line(run, "ledger", 5, lambda known: known | {"at": "2020"}),
        "ledger",
        None,
    ),
    "an entry, removed": (forget(5, 6), "ledger", None),
    "the first entry, removed": (forget(0, 1), "ledger", None),
    "the last entry, removed": (forget(-1), f"{REPORT}/report.json", None),
    "the last entries, removed": (forget(-6), "result.json", None),
    "two entries, swapped": (
        lambda run: (run / "ledger").write_text(
            "".join(sorted((run / "ledger").read_text().splitlines(keepends=True)))
        ),
        "ledger",
        None,
    ),
    "an entry, no longer one": (lambda run: byte(run / "ledger", 0), "ledger", None),
    "the ledger, deleted": (lambda run: (run / "ledger").unlink(), "ledger", None),
}


def test_an_untouched_run_is_whole(audited: Path) -> None:
    check = check_chain(audited)
    assert check.state == "whole" and check.notes == []
    assert f"head {read_ledger(audited).head.digest}" in check.looked_at  # type: ignore[union-attr]


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found_and_named(what: str, copied: Path) -> None:
    tamper, file, step = TAMPERED[what]
    tamper(copied)
    named = [finding for finding in check_chain(copied).findings if finding.file.startswith(file)]
    assert named and all(finding.what for finding in named), check_chain(copied).findings
    if step is not None:
        assert {finding.step for finding in named} == {step}


def test_a_chain_made_anew_is_seen_by_whoever_knows_a_head(copied: Path) -> None:
    known = read_ledger(copied)
    assert known is not None
    for head in (known.entries[3].digest, known.entries[-1].digest[:16]):
        assert check_chain(copied, head).state == "whole"
    row(copied, 2, "text", lambda text: text + "!")
    remade(copied)
    assert check_chain(copied).state == "whole"
    (finding,) = check_chain(copied, known.entries[-1].digest).findings
    assert finding == Finding("ledger", finding.what) and finding.what.startswith("--head names the head")


def test_a_chain_made_anew_is_seen_by_the_page_and_by_a_report(copied: Path) -> None:
    head = read_ledger(copied).head  # type: ignore[union-attr]
    assert head is not None
    content(copied, f"{REPORT}/report.json", lambda known: known.update(ledger={"digest": head.digest}))
    remade(copied)
    write_page(copied / "report.html", [copied])
    note_beside(copied / "report.html", "page")
    assert [finding.what.partition(" names")[0] for finding in check_chain(copied).findings] == [
        f"{REPORT}/report.json"
    ]
    remade(copied)  # after the page, which says what the head was
    assert "report.html" in {finding.what.partition(" names")[0] for finding in check_chain(copied).findings}


def killed_after(run: Path, entries: int) -> None:
    """Leave the run as a kill does, between the files of a step and their entry."""
    lines = (run / "ledger").read_text().splitlines(keepends=True)
    (run / "ledger").write_text("".join(lines[:entries]))
    noted = {name for each in lines[:entries] for name in json.loads(each).get("files", {})}
    later = {name for each in lines[entries + 1 :] for name in json.loads(each).get("files", {})} - noted
    for name in later - {MANIFEST}:
        (run / name).unlink()
    if not (run / "checkpoints" / "step-000003" / "policy" / "model.safetensors").exists():
        content(run, MANIFEST, lambda known: known["checkpoints"].pop())
    figures = [
        line for each in lines[: entries + 1] for line in json.loads(each).get("lines", {}).get("metrics.jsonl", [])
    ]
    kept = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[: len(figures)]
    (run / "metrics.jsonl").write_text("".join(kept))


def test_a_kill_before_an_entry_is_no_finding_and_the_next_attempt_notes_what_is_there(copied: Path) -> None:
    whole = read_ledger(copied)
    assert whole is not None
    place = next(i for i, entry in enumerate(whole.entries) if entry.about == "evaluation" and entry.step == 2)
    killed_after(copied, place)
    check = check_chain(copied)
    assert check.state == "whole", check.findings
    assert (
        len(check.notes) == 2 and "evaluation-step-000002" in str(check.notes) and "metrics.jsonl" in str(check.notes)
    )
    (copied / "ledger").open("ab").write(b'{"entry": 9, "before"')  # torn
    start_attempt(copied, 2)
    write_json(
        copied / "attempts" / "001" / "environment.json",
        json.loads((copied / "attempts/001/environment.json").read_text()),
    )
    Ledger(copied).note("attempt", attempt=2, from_step=2)
    check = check_chain(copied)
    assert check.state == "whole" and check.notes == [], (check.findings, check.notes)


def test_a_kill_between_a_checkpoint_and_its_entry_is_no_finding(copied: Path) -> None:
    whole = read_ledger(copied)
    assert whole is not None
    place = next(i for i, entry in enumerate(whole.entries) if entry.about == "checkpoint" and entry.step == 3)
    killed_after(copied, place)
    check = check_chain(copied)
    assert check.state == "whole", check.findings
    assert check.notes == [
        "checkpoints/step-000003 is in no entry yet: the run goes on, or was killed before it was noted"
    ]
    Ledger(copied).note("attempt", attempt=2, from_step=3)
    check = check_chain(copied)
    assert check.state == "whole" and check.notes == []
    byte(copied / "checkpoints" / "step-000003" / "policy" / "model.safetensors")
    assert [finding.step for finding in check_chain(copied).findings] == [3]


def test_more_than_a_kill_leaves_is_a_finding(copied: Path) -> None:
    forget(-5)(copied)
    (copied / "result.json").unlink()
    files = {finding.file for finding in check_chain(copied).findings}
    assert any("metrics.jsonl" in name for name in files)


def test_of_a_run_that_trains_the_newest_files_may_be_in_no_entry(copied: Path) -> None:
    forget(-4)(copied)
    (copied / "result.json").unlink()
    shutil.rmtree(copied / "evaluation")
    with run_lock(copied):
        check = check_chain(copied)
        assert (
            check.state == "whole" and check.notes[0] == "the run is training: its newest files may be in no entry yet"
        )
        row(copied, 1, "text", lambda text: text + "!")
        assert {finding.step for finding in check_chain(copied).findings} == {1}, "older ones may not be changed"


def test_a_run_of_an_older_version_is_not_checked(tmp_path: Path) -> None:
    append_line(tmp_path / "metrics.jsonl", {"step": 1, "attempt": 1, "phase": "train"})
    check = check_chain(tmp_path)
    assert check.state == "not checked" and "older version" in check.notes[0]
    Ledger(tmp_path).note("attempt", attempt=3, from_step=1)
    check = check_chain(tmp_path)
    assert check.state == "whole" and "begins with attempt 3" in check.notes[0]


def place_of(run: Path, about: str, step: int) -> int:
    """Number of the entry about a step's event."""
    known = read_ledger(run)
    assert known is not None
    return next(i for i, entry in enumerate(known.entries) if entry.about == about and entry.step == step)


def test_weights_of_an_older_checkpoint_are_not_excused_by_a_step_in_the_manifest(copied: Path) -> None:
    """After a kill the newest checkpoint may be in no entry: which that is, the manifest alone does not say."""
    killed_after(copied, place_of(copied, "checkpoint", 3))
    shutil.rmtree(copied / "checkpoints" / "step-000003")
    content(copied, MANIFEST, lambda known: known["checkpoints"].pop())
    assert check_chain(copied).state == "whole", check_chain(copied).findings
    byte(copied / POLICY / "model.safetensors")
    content(copied, MANIFEST, lambda known: known["checkpoints"][1].update(step=3))
    assert {f"{POLICY}/model.safetensors", MANIFEST} <= {finding.file for finding in check_chain(copied).findings}


def test_beside_a_checkpoint_in_no_entry_the_manifest_lists_what_the_ledger_notes(copied: Path) -> None:
    killed_after(copied, place_of(copied, "checkpoint", 3))
    content(copied, MANIFEST, lambda known: known["checkpoints"][0]["files"][0].update(crc32=1))
    content(copied, MANIFEST, lambda known: known["checkpoints"][1].update(step=1))
    found = [finding for finding in check_chain(copied).findings if finding.file == MANIFEST]
    assert {finding.step for finding in found} == {1} and len(found) == 2, found


def test_a_start_that_fails_leaves_no_finding(copied: Path) -> None:
    """A resume with other settings that did not begin an attempt, and then another one."""
    for seed in (8, 9):
        (copied / "attempts" / "002").mkdir(exist_ok=True)
        write_json(copied / "attempts" / "002" / "environment.json", {"started": seed})
        assert check_chain(copied).findings == []
        content(copied, "config.json", lambda known, seed=seed: known["run"].update(steps=seed))
        Ledger(copied).note("start", only_news=True, attempt=2)  # as `begin_run` does
        check = check_chain(copied)
        assert check.state == "whole" and check.notes == [], (check.findings, check.notes)
    content(copied, "config.json", lambda known: known["run"].update(steps=10))
    assert [finding.file for finding in check_chain(copied).findings] == ["config.json"]


def test_what_a_training_process_has_just_replaced_waits_for_its_entry(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_files, "_PAUSE_S", 0.2)
    Ledger(copied).note("attempt", attempt=2, from_step=3)
    with run_lock(copied):
        content(copied, "problems.json", lambda known: known.update(model="another"))
        later = threading.Timer(0.3, Ledger(copied).note, ["step"])
        later.start()
        assert check_chain(copied).state == "whole"
        later.join()
        content(copied, "problems.json", lambda known: known.update(model="nobody's"))
        assert [finding.file for finding in check_chain(copied).findings] == ["problems.json"]


@pytest.mark.parametrize("lock", ["process 1 on elsewhere\n", f"process {os.getpid()} on {os.uname().nodename}\n"])
def test_a_lock_excuses_nothing_in_a_run_that_has_ended(copied: Path, lock: str) -> None:
    (copied / "driver.lock").write_text(lock)
    later = time.time() + 10**6
    for name in ("driver.lock", "cost.json"):
        os.utime(copied / name, (later, later))
    append_line(copied / "metrics.jsonl", {"step": 4, "attempt": 1, "phase": "train"})
    (copied / "completions" / "train-step-000004-attempt-001-00000000.parquet").write_bytes(b"x")
    found = {finding.file.partition("-attempt")[0] for finding in check_chain(copied).findings}
    assert found == {"metrics.jsonl", "completions/train-step-000004"}


def test_a_lock_excuses_no_more_than_one_step(copied: Path) -> None:
    killed_after(copied, place_of(copied, "evaluation", 2))
    shutil.rmtree(copied / "evaluation")
    with run_lock(copied):
        assert check_chain(copied).state == "whole", check_chain(copied).findings
        (copied / "completions" / "train-step-000003-attempt-001-00000000.parquet").write_bytes(b"x")
        append_line(copied / "metrics.jsonl", {"step": 3, "attempt": 1, "phase": "train"})
        found = {finding.file.partition("-attempt")[0] for finding in check_chain(copied).findings}
    assert found == {"completions/evaluation-step-000002", "completions/train-step-000003", "metrics.jsonl"}


@pytest.mark.parametrize(("step", "found"), [(3, []), (2, ["decisions.jsonl"])])
def test_a_kill_after_several_decisions_of_one_step_is_no_finding(copied: Path, step: int, found: list[str]) -> None:
    killed_after(copied, place_of(copied, "evaluation", 3))
    for action in ("warn", "roll_back"):
        append_line(copied / "decisions.jsonl", {"step": step, "attempt": 1, "action": action})
    assert [finding.file for finding in check_chain(copied).findings] == found


def test_a_kill_before_the_last_entry_is_no_finding(copied: Path) -> None:
    forget(-2)(copied)
    shutil.rmtree(copied / "evaluation")
    check = check_chain(copied)
    assert check.findings == [] and [note.partition(" is")[0] for note in check.notes] == ["result.json"]


def test_a_kill_in_an_attempt_that_went_back_is_no_finding(copied: Path) -> None:
    (copied / "result.json").unlink()
    start_attempt(copied, 1)
    Ledger(copied).note("attempt", attempt=2, from_step=1)
    (copied / "completions" / "train-step-000002-attempt-002-00000000.parquet").write_bytes(b"x")
    check = check_chain(copied)
    assert check.findings == [] and len(check.notes) == 1, check.findings


@pytest.mark.parametrize(("about", "torn"), [("page", True), ("stop", True), ("attempt", True), ("step", False)])
def test_a_torn_entry_is_followed_by_one_that_another_process_wrote(copied: Path, about: str, torn: bool) -> None:
    (copied / "ledger").open("ab").write(b'{"entry": 99, "bef')
    Ledger(copied).note(about)
    assert (check_chain(copied).findings == []) == torn


def test_an_older_version_s_reports_are_noted_when_its_run_goes_on(copied: Path) -> None:
    (copied / "ledger").unlink()
    write_page(copied / "report.html", [copied])
    parts = [path.relative_to(copied).as_posix() for path in copied.glob("checkpoints/step-*/*")]
    Ledger(copied).note("start", only_news=True, attempt=2, folders=parts)
    check = check_chain(copied)
    assert check.state == "whole" and "begins with attempt 2" in check.notes[0], check.findings
    byte(copied / REPORT / "sums-000000.parquet")
    assert [finding.file for finding in check_chain(copied).findings] == [f"{REPORT}/sums-000000.parquet"]


@pytest.mark.parametrize("sign", ["figures", "settings"])
def test_a_deleted_ledger_is_missed_by_what_this_version_writes(tmp_path: Path, sign: str) -> None:
    append_line(tmp_path / "metrics.jsonl", {"step": 1, "attempt": 1, "phase": "train"})
    assert check_chain(tmp_path).state == "not checked"
    if sign == "figures":
        append_line(tmp_path / "metrics.jsonl", {"step": 2, "attempt": 1, "phase": "train", "setting/kl_beta": 0.0})
    else:
        (tmp_path / "attempts" / "001").mkdir(parents=True)
        (tmp_path / "attempts" / "001" / "config.json").write_text("{}")
    assert [finding.file for finding in check_chain(tmp_path).findings] == ["ledger"]


def rate(known: dict[str, Any]) -> None:
    known["learner"]["learning_rate"] = 0.5


def test_a_page_or_report_does_not_take_changed_settings_into_the_chain(copied: Path) -> None:
    for name in ("config.json", "attempts/001/config.json"):
        content(copied, name, rate)
    write_page(copied / "report.html", [copied])
    note_beside(copied / "report.html", "page")
    note_evaluation([copied / REPORT])
    assert {finding.file for finding in check_chain(copied).findings} == {"config.json", "attempts/001/config.json"}


def test_what_is_written_once_and_noted_with_another_content_is_found(copied: Path) -> None:
    (file, *_) = sorted((copied / REPORT).glob("*.parquet"))
    byte(file)
    note_evaluation([copied / REPORT])
    (finding,) = check_chain(copied).findings
    assert finding.file == file.relative_to(copied).as_posix() and "writes it again" in finding.what
    content(copied, "attempts/001/config.json", rate)
    byte(copied / POLICY / "model.safetensors")
    Ledger(copied).note("step", step=3, attempt=1, folders=[POLICY])  # as somebody who makes entries by hand
    files = {finding.file for finding in check_chain(copied).findings}
    assert files >= {"attempts/001/config.json", f"{POLICY}/model.safetensors"}


def test_a_policy_that_is_saved_again_is_no_finding(copied: Path) -> None:
    byte(copied / POLICY / "model.safetensors")
    Ledger(copied).note("checkpoint", step=2, attempt=1, folders=[POLICY])
    assert not [finding for finding in check_chain(copied).findings if "writes it again" in finding.what]


def test_a_head_that_was_told_says_what_has_changed_since(copied: Path) -> None:
    head = read_ledger(copied).head  # type: ignore[union-attr]
    assert head is not None and check_chain(copied, head.digest).notes == []
    content(copied, "config.json", rate)
    Ledger(copied).note("attempt", attempt=2, from_step=3)
    notes = check_chain(copied, head.digest).notes
    assert any(note.startswith("config.json was changed after the head that was given") for note in notes)
