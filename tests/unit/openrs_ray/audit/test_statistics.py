"""Figures computed again from the record: accuracy, intervals, outcome, choice of a checkpoint, reports."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tampering import content, line, row

from openrs_ray.audit.compare import compare_figures
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun
from openrs_ray.audit.statistics import check_statistics
from openrs_ray.common.files import append_line
from openrs_ray.common.parquet import write_table
from openrs_ray.evaluation.store import SCHEMA, read_completions
from openrs_ray.report.static import as_block, read_page, write_page
from openrs_ray.run.ledger import Ledger, note_beside

REPORT = "evaluation/robust/audited-step-3/report.json"
EVALUATION_OF_1 = 2  # its line in metrics.jsonl


def interval(run: Path, end: str, name: str, value: float) -> None:
    content(run, "result.json", lambda known: known[end].update({name: value}))


def page(run: Path) -> None:
    """A page whose difference was made larger."""
    write_page(run / "report.html", [run])
    text, data = (run / "report.html").read_text(), read_page(run / "report.html")
    assert data is not None
    before = as_block(data)
    data["runs"][0]["headline"]["difference"]["mean"] += 0.1
    (run / "report.html").write_text(text.replace(before, as_block(data)))


def start_model(run: Path, own: float, difference: float) -> None:
    """A start model beside the evaluated one: it answered 2 of 4 completions right."""
    folder = (run / REPORT).parent
    rows = read_completions(folder / "sums-000000.parquet").to_pylist()
    for each, status in zip(rows, ("correct", "wrong", "correct", "wrong"), strict=True):
        each["status"] = status
    write_table(folder.parent / "start-model" / "sums-000000.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))

    def add(known: dict[str, Any]) -> None:
        ((label, figures),) = known["models"].items()
        average = {"mean": own, "low": 0.0, "high": 1.0}
        known["models"]["start model"] = {"sums": figures["sums"] | {"average": average}}
        known["against_start_model"] = {label: {"sums": {"difference": {"mean": difference}}}}

    content(run, REPORT, add)


TAMPERED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a held-out accuracy": (
        lambda run: line(run, "metrics.jsonl", EVALUATION_OF_1, lambda known: known | {"accuracy": 1.0}),
        "metrics.jsonl",
        "accuracy is",
    ),
    "a figure of a step": (
        lambda run: line(run, "metrics.jsonl", 1, lambda known: known | {"mean_length": 1.0}),
        "metrics.jsonl",
        "mean_length is",
    ),
    "an interval of the outcome": (lambda run: interval(run, "after", "low", 0.9), "result.json", "after is"),
    "the start model's accuracy": (lambda run: interval(run, "before", "mean", 0.0), "result.json", "before is"),
    "the tokens": (
        lambda run: content(run, "result.json", lambda known: known.update(tokens=7)),
        "result.json",
        "tokens is",
    ),
    "a held-out verdict": (
        lambda run: row(run, 1, "status", lambda s: "wrong" if s == "correct" else "correct", "evaluation"),
        "metrics.jsonl",
        "accuracy is",
    ),
    "a report's tokens": (
        lambda run: content(
            run, REPORT, lambda known: known["models"]["audited, step 3"]["sums"].update(mean_tokens=9.0)
        ),
        REPORT,
        "mean_tokens is",
    ),
    "a report's interval": (
        lambda run: content(
            run, REPORT, lambda known: known["models"]["audited, step 3"]["sums"]["average"].update(low=0.8)
        ),
        REPORT,
        "the interval of sums does not hold its mean",
    ),
    "a report's accuracy": (
        lambda run: content(
            run, REPORT, lambda known: known["models"]["audited, step 3"]["sums"]["average"].update(mean=0.9)
        ),
        REPORT,
        "audited, step 3, sums, average: mean is 0.75",
    ),
    "the start model's accuracy in a report": (
        lambda run: start_model(run, own=1.0, difference=0.25),
        REPORT,
        "start model, sums, average: mean is 0.5",
    ),
    "a report's difference": (
        lambda run: start_model(run, own=0.5, difference=0.5),
        REPORT,
        "audited, step 3, sums: the difference is 0.25",
    ),
    "a benchmark's completion": (
        lambda run: (run / REPORT).parent.joinpath("sums-000000.parquet").unlink(),
        REPORT,
        "it does not fit the completions beside it",
    ),
    "the page's difference": (page, "report.html", "mean is"),
}


def test_the_figures_of_an_untouched_run_follow_from_its_record(audited: Path) -> None:
    check = check_statistics(AuditedRun.read(audited))
    assert check.state == "whole" and check.notes == [], check.findings
    assert (
        check.looked_at.startswith("3 steps, 4 evaluations; ") and "paired over the same 5 problems" in check.looked_at
    )


@pytest.mark.parametrize("what", TAMPERED)
def test_a_change_is_found_and_named(what: str, copied: Path) -> None:
    tamper, file, said = TAMPERED[what]
    tamper(copied)
    findings = check_statistics(AuditedRun.read(copied)).findings
    assert any(finding.file == file and finding.what.startswith(said) for finding in findings), findings


def test_a_report_that_fits_its_completions_is_no_finding(copied: Path) -> None:
    start_model(copied, own=0.5, difference=0.25)
    assert check_statistics(AuditedRun.read(copied)).findings == []


def test_lines_without_a_record_and_removed_figures_are_found(copied: Path) -> None:
    figures = {"step": 4, "attempt": 1, "reward": 1.0}
    append_line(copied / "metrics.jsonl", figures | {"phase": "train"})
    append_line(copied / "metrics.jsonl", figures | {"phase": "evaluation"})
    line(copied, "metrics.jsonl", 1, lambda known: {name: x for name, x in known.items() if name != "mean_length"})
    line(copied, "metrics.jsonl", 0, lambda known: {name: x for name, x in known.items() if name != "low"})
    found = {finding.step: finding.what for finding in check_statistics(AuditedRun.read(copied)).findings}
    assert found.keys() == {0, 1, 4}
    assert found[1].startswith("mean_length is") and found[0].startswith("low is")
    assert "does not hold" in found[4]


def test_a_line_of_an_older_version_may_lack_figures(copied: Path) -> None:
    (copied / "attempts" / "001" / "config.json").unlink()

    def older(known: dict[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in known.items() if name != "mean_length" and not name.startswith("setting/")}

    line(copied, "metrics.jsonl", 1, older)
    assert check_statistics(AuditedRun.read(copied)).findings == []


def test_a_resume_without_a_further_evaluation_is_no_finding(copied: Path) -> None:
    """The last evaluation was made after the checkpoint that the run went on from."""
    none = {"evaluated": 2, "after": None, "tasks_after": {}}
    content(copied, "result.json", lambda known: known.update(none))
    assert check_statistics(AuditedRun.read(copied)).findings == []
    content(copied, "result.json", lambda known: known.update(evaluated=7))
    (finding,) = check_statistics(AuditedRun.read(copied)).findings
    assert finding.what == "evaluated is 7, and the record has no evaluation of that step"


def test_a_page_from_before_the_newest_attempt_is_not_compared(copied: Path) -> None:
    page(copied)
    note_beside(copied / "report.html", "page")
    assert [finding.file for finding in check_statistics(AuditedRun.read(copied)).findings] == ["report.html"]
    Ledger(copied).note("attempt", attempt=2, from_step=2)
    check = check_statistics(AuditedRun.read(copied))
    assert check.findings == [] and "report.html is older" in check.notes[0]
    Ledger(copied).note("report", folders=["report.html"])  # unchanged: no newer
    write_page(copied / "report.html", [copied])
    note_beside(copied / "report.html", "page")
    assert check_statistics(AuditedRun.read(copied)).notes == []


def test_the_choice_of_a_checkpoint_is_made_again(copied: Path) -> None:
    best = max((1, 2, 3), key=lambda step: (AuditedRun.read(copied).evaluation_lines[step]["accuracy"], -step))
    Ledger(copied).note("export", step=best, asked="best")
    assert check_statistics(AuditedRun.read(copied)).findings == []
    other = 1 + best % 3
    Ledger(copied).note("export", step=other, asked="best")
    (finding,) = check_statistics(AuditedRun.read(copied)).findings
    assert finding.file == "ledger" and f"exported step {other} as the best, which is {best}" in finding.what
    Ledger(copied).note("export", step=other, asked=str(other))  # a step that was named is no choice
    place = 2 * other  # the line of its evaluation
    line(copied, "metrics.jsonl", place, lambda known: known | {"accuracy": 2.0})
    said = [finding.what for finding in check_statistics(AuditedRun.read(copied)).findings]
    assert f"the best kept policy is that of step {best} by the record, and of step {other} by its lines" in said


@pytest.mark.parametrize(
    ("name", "logged", "found"), [("task/x/accuracy", 0.0, 0), ("task/x/accuracy", 0.5, 1), ("reward", 0.0, 1)]
)
def test_older_versions_had_no_accuracy_as_0(name: str, logged: float, found: int) -> None:
    check = Check("figures")
    compare_figures(check, "metrics.jsonl", {name: logged}, {name: math.nan}, 1, complete=True)
    assert len(check.findings) == found
