"""Computes the run's figures again from its record: curves, held-out accuracy, outcome, choice of a checkpoint, reports."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from openrs_ray.algorithm.step_metrics import correctness, step_metrics, task_metrics
from openrs_ray.audit.compare import compare_figures, same
from openrs_ray.audit.findings import Check
from openrs_ray.audit.reports import check_reports
from openrs_ray.audit.run import AuditedRun, Recorded, read_recorded
from openrs_ray.evaluation.gain import checked_tasks, gain, gain_text
from openrs_ray.evaluation.held_out import HeldOutScores, held_out_scores
from openrs_ray.export.choice import best_step
from openrs_ray.records import Status
from openrs_ray.report.headline import difference
from openrs_ray.report.static import read_page
from openrs_ray.run.ledger import read_ledger
from openrs_ray.run.progress import RESULT, Progress, read_result

_METRICS = "metrics.jsonl"


def check_statistics(run: AuditedRun) -> Check:
    check = Check("figures, computed again")
    steps, tokens, correct = _check_steps(run, check)
    scores = {part.file.step: held_out_scores(part.groups, run.config.tasks) for part in _evaluations(run, check)}
    _check_result(run, check, scores, steps, tokens, correct)
    _check_choice(run, check, scores)
    _check_page(run, check, scores)
    reports = check_reports(run, check)
    gained = _gained(run, scores)
    check.looked_at = f"{steps} steps, {len(scores)} evaluations{gained}{f'; reports: {reports}' if reports else ''}"
    return check


def _check_steps(run: AuditedRun, check: Check) -> tuple[int, int, int]:
    """Compare every step's line with its rows. Returns the steps, and their tokens and correct completions."""
    replaced, files = {file.step: file for file in run.files(("replaced",))}, run.files(("train",))
    _find_unrecorded(check, run.train_lines, {file.step for file in files}, "a step")
    steps = tokens = correct = 0
    for file in files:
        parts = [read_recorded(run, one) for one in (file, replaced.get(file.step)) if one is not None]
        groups = [group for part in parts for group in part.groups]
        steps, tokens = steps + 1, tokens + sum(r.sampled_tokens for group in groups for r in group.rollouts)
        correct += sum(verdict.status is Status.CORRECT for group in groups for verdict in group.verdicts)
        if file.step in run.train_lines:
            line, figures = run.train_lines[file.step], step_metrics(groups) | task_metrics(groups)
            compare_figures(check, _METRICS, line, figures, file.step, run.writes_all(line))
    return steps, tokens, correct


def _evaluations(run: AuditedRun, check: Check) -> Iterator[Recorded]:
    """The evaluations that count, each after its line was compared."""
    files = run.files(("evaluation",))
    _find_unrecorded(check, run.evaluation_lines, {file.step for file in files}, "an evaluation")
    for file in files:
        part = read_recorded(run, file)
        line = run.evaluation_lines.get(file.step)
        if line is None:
            check.find(_METRICS, "it has no line of an evaluation that the record holds", file.step)
        else:
            unjudged = float(np.isnan(correctness(part.groups)).sum())
            figures = held_out_scores(part.groups, run.config.tasks).metrics() | {"unjudged": unjudged}
            compare_figures(check, _METRICS, line, figures, file.step, run.writes_all(line))
        yield part


def _find_unrecorded(check: Check, lines: Iterable[int], steps: Container[int], what: str) -> None:
    for step in lines:
        if step not in steps:
            check.find(_METRICS, f"it has a line of {what} that the record does not hold", step)


def _check_result(
    run: AuditedRun, check: Check, scores: Mapping[int, HeldOutScores], steps: int, tokens: int, correct: int
) -> None:
    result = read_result(run.folder)
    if result is None:
        check.notes.append("the run has no result.json: it goes on, or was stopped")
        return
    expected: dict[str, Any] = {"step": steps, "tokens": tokens, "correct": correct}
    if result.evaluated is not None and result.evaluated not in scores:
        check.find(RESULT, f"evaluated is {result.evaluated}, and the record has no evaluation of that step")
    expected |= _ends(result, scores)
    for name, value in expected.items():
        if not _equal(value, getattr(result, name)):
            check.find(RESULT, f"{name} is {_shown(value)} by the record, and it has {_shown(getattr(result, name))}")


def _ends(result: Progress, scores: Mapping[int, HeldOutScores]) -> dict[str, Any]:
    """Held-out figures before and after, where they were evaluated."""
    before = {"before": scores[0].accuracy, "tasks_before": scores[0].tasks} if 0 in scores else {}
    unevaluated = result.after is None and not result.tasks_after and result.evaluated != result.step  # by this attempt
    if result.step not in scores or result.step == 0 or unevaluated:
        return before
    after = scores[result.step]
    return before | {"after": after.accuracy, "tasks_after": after.tasks}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if hasattr(a, "__dataclass_fields__") and hasattr(b, "__dataclass_fields__"):
        return _equal(asdict(a), asdict(b))
    return same(a, b) if isinstance(a, float) else bool(a == b)


def _shown(value: Any) -> str:
    return str(value) if value is not None else "none"


def _check_choice(run: AuditedRun, check: Check, scores: Mapping[int, HeldOutScores]) -> None:
    """The best checkpoint by the record must be the best by metrics.jsonl, and that of the newest export of the best."""
    by_record = {step: score.metrics() for step, score in scores.items() if step in run.policies}
    by_lines = {step: line for step, line in run.evaluation_lines.items() if step in run.policies}
    if not by_record or not by_lines:
        return
    best, told = best_step(by_record), best_step(by_lines)
    if best != told:
        check.find(
            _METRICS, f"the best kept policy is that of step {best} by the record, and of step {told} by its lines"
        )
    known = read_ledger(run.folder)
    for entry in reversed(known.entries if known else []):
        if entry.about in ("evaluation", "checkpoint"):
            return  # an older export chose among fewer
        if entry.about == "export" and entry.content.get("asked") == "best" and entry.step != best:
            check.find(
                "ledger", f"entry {entry.number} exported step {entry.step} as the best, which is {best}", entry.step
            )


def _check_page(run: AuditedRun, check: Check, scores: Mapping[int, HeldOutScores]) -> None:
    """The headline of report.html, as far as its evaluations go."""
    path = run.folder / "report.html"
    content = read_page(path) if path.exists() else None
    if content and _is_older(run, path.name):
        check.notes.append(f"{path.name} is older than the newest evaluation or attempt: its headline was not compared")
        return
    for shown in (content or {}).get("runs", []):
        head = shown.get("headline") or {}
        if shown.get("name") != run.folder.name:
            continue
        for end, step in (("before", 0), ("after", int((head.get("after") or {}).get("step", -1)))):
            score = scores[step].accuracy if step in scores else None
            if head.get(end) and score:
                compare_figures(check, path.name, head[end], asdict(score), step)
        if head.get("difference") and "fault" not in head["difference"]:
            expected = difference(*gain(run.folder, head["after"]["step"], checked_tasks(run.config)))
            numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
            compare_figures(check, path.name, head["difference"], numbers, head["after"]["step"])


def _is_older(run: AuditedRun, name: str) -> bool:
    """True where what a page shows may have been superseded since the ledger noted it."""
    known = read_ledger(run.folder)
    entries = known.entries if known else []
    noted = [place for place, entry in enumerate(entries) if entry.files.get(name)]
    return bool(noted) and any(entry.about in ("evaluation", "attempt") for entry in entries[noted[-1] :])


def _gained(run: AuditedRun, scores: Mapping[int, HeldOutScores]) -> str:
    """Example: "; +13.3 points [+1.7, +25.0], paired over the same 60 problems" """
    last = max(scores, default=0)
    if not last or 0 not in scores or scores[last].accuracy is None:
        return ""
    return f"; {gain_text(run.folder, last, checked_tasks(run.config))}"
