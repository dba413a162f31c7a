"""Verifies the ledger: that each entry follows the one before it, and that every file is as its newest entry has it."""

from pathlib import Path

from openrs_ray.audit.chain_files import check_files, check_written_once
from openrs_ray.audit.chain_lines import check_lines
from openrs_ray.audit.findings import SHORT, Check
from openrs_ray.audit.heads import check_heads
from openrs_ray.audit.reached import ended
from openrs_ray.common.files import read_lines
from openrs_ray.common.parquet import column_names
from openrs_ray.errors import UserError
from openrs_ray.report.summary import driven
from openrs_ray.run.completion_files import FOLDER as COMPLETIONS
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.ledger import FILE, Entry, Known, read_ledger
from openrs_ray.run.metrics import FILE as METRICS

_WITHIN_AN_ATTEMPT = ("step", "evaluation", "checkpoint")
"""Entries that the process writes which wrote the one before: a kill comes between no two of them."""


def check_chain(folder: Path, head: str | None = None) -> Check:
    """`head`: the digest that the ledger is known to have had at some time."""
    check = Check("chain of digests")
    known = read_ledger(folder)
    going = driven(folder) and not (known and ended(known))  # a lock beside an ended run excuses nothing
    if going:
        check.notes.append("the run is training: its newest files may be in no entry yet")
    if known is None or not known.entries:
        _without_ledger(folder, check, head)
        return check
    _check_entries(known, check)
    check_heads(folder, known, check, head)
    check_lines(folder, known, check, going)
    check_files(folder, known, check, going)
    check_written_once(known, check)
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
    """By what only versions with a ledger write."""
    files = [path for path in (folder / COMPLETIONS).glob("*.parquet") if RecordFile.named(path)]
    if any((folder / "attempts").glob("*/config.json")):
        return True
    try:
        of_lines = any(name.startswith("setting/") for line in read_lines(folder / METRICS) for name in line)
        return of_lines or any("learner_logprobs" in column_names(path) for path in files)
    except UserError:
        return False


def _check_entries(known: Known, check: Check) -> None:
    before, number = "", 0
    for entry in known.entries:
        if entry.content["before"] != before or entry.number != number:
            expected = f"entry {number} after {before[:SHORT] or 'nothing'}"
            found_it = f"entry {entry.number} after {entry.content['before'][:SHORT] or 'nothing'}"
            check.find(FILE, f"line {entry.line} ({_named(entry)}) should be {expected} and is {found_it}", entry.step)
        before, number = entry.digest, entry.number + 1
    for line in known.torn:
        after = next((entry for entry in known.entries if entry.line > line), None)
        if after and after.about in _WITHIN_AN_ATTEMPT:
            check.find(FILE, f"line {line} is no entry, and no kill has torn it: the attempt goes on in the next one")
    first = known.entries[0]
    if first.about in ("start", "attempt") and first.content.get("attempt", 1) > 1:
        check.notes.append(
            f"the ledger begins with attempt {first.content['attempt']}: what is older was noted afterwards"
        )


def _named(entry: Entry) -> str:
    return f"{entry.about}{f' of step {entry.step}' if entry.step is not None else ''}"
