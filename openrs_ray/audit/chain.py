"""Verifies the ledger: that each entry follows the one before it, and that every file is as its newest entry has it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from openrs_ray.audit.findings import Check
from openrs_ray.audit.heads import REPORTS, check_heads
from openrs_ray.common.parquet import column_names
from openrs_ray.errors import UserError
from openrs_ray.report.summary import driven
from openrs_ray.run.completion_files import FOLDER as COMPLETIONS
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.ledger import FILE, Entry, Known, read_ledger
from openrs_ray.run.ledger_files import (
    ADDED,
    APPENDED,
    REPLACED,
    checkpoint_parts,
    digest,
    file_digests,
    found,
    listed_checkpoints,
    whole_lines,
)

_MAY_GO = re.compile(r"report\.html|export/.*|checkpoints/step-.*")
"""Files that a run, or its owner, may remove; the manifest says which checkpoints there are."""
_MANIFEST = "checkpoints/manifest.json"
_SHORT = 12


def check_chain(folder: Path, head: str | None = None) -> Check:
    """`head`: the digest that the ledger is known to have had at some time."""
    check = Check("chain of digests")
    going = driven(folder)  # first: what the run writes from here on may be in no entry
    if going:
        check.notes.append("the run is training: its newest files may be in no entry yet")
    known = read_ledger(folder)
    if known is None or not known.entries:
        _without_ledger(folder, check, head)
        return check
    _check_entries(known, check)
    check_heads(folder, known, check, head)
    _check_lines(folder, known, check, going)
    _check_files(folder, known, check, going)
    files = sum(value is not None for value in known.files.values())
    lines = sum(map(len, known.lines.values()))
    check.looked_at = f"{len(known.entries)} entries, {files} files, {lines} lines; head {known.entries[-1].digest}"
    return check


def _without_ledger(folder: Path, check: Check, head: str | None) -> None:
    if head or _of_this_version(folder):
        check.find(FILE, "it is missing or empty, and the run was written by a version that keeps one")
    else:
        check.notes.append(
            "the run is of an older version, which kept no ledger: its files may have been changed since"
        )


def _of_this_version(folder: Path) -> bool:
    files = [path for path in (folder / COMPLETIONS).glob("*.parquet") if RecordFile.named(path)]
    try:
        return any("learner_logprobs" in column_names(path) for path in files)
    except UserError:
        return False


def _check_entries(known: Known, check: Check) -> None:
    before, number = "", 0
    for entry in known.entries:
        if entry.content["before"] != before or entry.number != number:
            expected = f"entry {number} after {before[:_SHORT] or 'nothing'}"
            found_it = f"entry {entry.number} after {entry.content['before'][:_SHORT] or 'nothing'}"
            check.find(FILE, f"line {entry.line} ({_named(entry)}) should be {expected} and is {found_it}", entry.step)
        before, number = entry.digest, entry.number + 1
    starts = {entry.line for entry in known.entries if entry.about == "attempt"}
    for line in known.torn:
        if line < known.entries[-1].line and line + 1 not in starts:
            check.find(FILE, f"line {line} is no entry, and no kill has torn it: the next one begins no attempt")
    first = known.entries[0]
    if first.about == "attempt" and first.content.get("attempt", 1) > 1:
        check.notes.append(
            f"the ledger begins with attempt {first.content['attempt']}: what is older was noted afterwards"
        )


def _named(entry: Entry) -> str:
    return f"{entry.about}{f' of step {entry.step}' if entry.step is not None else ''}"


def _check_lines(folder: Path, known: Known, check: Check, going: bool) -> None:
    for name in APPENDED:
        noted, path = known.lines.get(name, []), folder / name
        lines = whole_lines(path.read_bytes()) if path.exists() else []
        digests = [digest(line) for line in lines]
        if digests[: len(noted)] == noted:
            _check_more_lines(name, lines[len(noted) :], known, check, going)
            continue
        place = next(
            (i for i, (a, b) in enumerate(zip(digests, noted, strict=False)) if a != b), min(len(digests), len(noted))
        )
        step = _step_of(lines[place]) if place < len(lines) else None
        if len(digests) < len(noted) and digests == noted[: len(digests)]:
            check.find(name, f"it has {len(digests)} lines, and the ledger notes {len(noted)}", step)
        else:
            check.find(name, f"line {place + 1} is not the line that the ledger notes", step)


def _check_more_lines(name: str, more: list[bytes], known: Known, check: Check, going: bool) -> None:
    if more and not going and (_ended(known) or len(more) > 1):
        check.find(name, f"its last {len(more)} lines are in no entry of the ledger", _step_of(more[0]))
    elif more:
        check.notes.append(
            f"the last line of {name} is in no entry yet: the run goes on, or was killed before it was noted"
        )


def _step_of(line: bytes) -> int | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    step = content.get("step") if isinstance(content, dict) else None
    return step if isinstance(step, int) else None


def _ended(known: Known) -> bool:
    """True where nothing was begun after the run's end."""
    last = next((entry.about for entry in reversed(known.entries) if entry.about in ("attempt", "step", "end")), "")
    return last == "end"


def _check_files(folder: Path, known: Known, check: Check, going: bool) -> None:
    noted = {name: value for name, value in known.files.items() if value is not None}
    there = [name for name in noted if (folder / name).is_file()]
    digests = file_digests(folder, there)
    listed = listed_checkpoints(folder)
    newest = _newest_unnoted(known, listed)
    for name, value in noted.items():
        step = _step_in(name)
        if newest and (name == _MANIFEST or name.startswith(f"{newest}/")):
            continue
        if name not in digests:
            if not _MAY_GO.fullmatch(name) or any(name.startswith(f"{each}/") for each in listed):
                check.find(name, "it is missing, and the ledger notes it", step)
        elif digests[name] != value:
            begins = f"its SHA-256 begins with {digests[name][:_SHORT]}, and the ledger notes {value[:_SHORT]}"
            check.find(name, begins, step)
    if newest:
        check.notes.append(f"{newest} is in no entry yet: the run goes on, or was killed before it was noted")
    _check_unlisted(folder, known, noted, newest, check, going)


def _newest_unnoted(known: Known, listed: Mapping[str, int]) -> str | None:
    """The folder of a checkpoint of the newest step that the run had no time to note."""
    after = next(
        (entry for entry in reversed(known.entries) if entry.about in ("attempt", "step", "checkpoint", "end")), None
    )
    if after is None or after.about != "step":
        return None
    return next((folder for folder, step in listed.items() if step == after.step), None)


def _check_unlisted(
    folder: Path, known: Known, noted: Mapping[str, str], unnoted: str | None, check: Check, going: bool
) -> None:
    """Files that are there and should be in an entry."""
    newest = max((entry.step or 0 for entry in known.entries if entry.about in ("step", "evaluation")), default=0)
    patterns = [*ADDED, *REPLACED, REPORTS, *checkpoint_parts(folder)]
    for name in found(folder, patterns, noted):
        if unnoted and name.startswith(f"{unnoted}/"):
            continue
        step = _step_in(name)
        killed = not _ended(known) and step is not None and newest <= step <= newest + 1
        if going or killed or name.startswith("attempts/"):
            check.notes.append(f"{name} is in no entry yet: the run goes on, or was killed before it was noted")
        else:
            check.find(
                name, "it is in no entry of the ledger: nothing of the run has written it, or entries are gone", step
            )


def _step_in(name: str) -> int | None:
    match = re.search(r"step-(\d+)", name)
    return int(match[1]) if match else None
