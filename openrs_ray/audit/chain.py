"""Verifies the ledger: that each entry follows the one before it, and that every file is as its newest entry has it."""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from openrs_ray.audit.findings import Check
from openrs_ray.audit.heads import REPORTS, check_heads
from openrs_ray.common.files import read_lines
from openrs_ray.common.parquet import column_names
from openrs_ray.errors import UserError
from openrs_ray.report.summary import driven
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import FOLDER as COMPLETIONS
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.decisions import FILE as DECISIONS
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
from openrs_ray.run.metrics import FILE as METRICS

_MAY_GO = re.compile(r"report\.html|export/.*|checkpoints/step-.*")
"""Files that a run, or its owner, may remove; the manifest says which checkpoints there are."""
_MANIFEST = "checkpoints/manifest.json"
_SHORT = 12
_WITHIN_AN_ATTEMPT = ("step", "evaluation", "checkpoint")
"""Entries that the process writes which wrote the one before: a kill comes between no two of them."""
_READ_AGAIN, _PAUSE_S = 5, 1.0
"""How often, and how far apart, what a training process has just replaced is compared with the ledger."""


def check_chain(folder: Path, head: str | None = None) -> Check:
    """`head`: the digest that the ledger is known to have had at some time."""
    check = Check("chain of digests")
    known = read_ledger(folder)
    going = driven(folder) and not (known and _ended(known))  # a lock beside an ended run excuses nothing
    if going:
        check.notes.append("the run is training: its newest files may be in no entry yet")
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
            expected = f"entry {number} after {before[:_SHORT] or 'nothing'}"
            found_it = f"entry {entry.number} after {entry.content['before'][:_SHORT] or 'nothing'}"
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


def _check_lines(folder: Path, known: Known, check: Check, going: bool) -> None:
    for name in APPENDED:
        noted, path = known.lines.get(name, []), folder / name
        lines = whole_lines(path.read_bytes()) if path.exists() else []
        digests = [digest(line) for line in lines]
        if going:  # more may have been written, and noted, since the ledger was read
            noted = _again(folder, known).lines.get(name, [])[: max(len(noted), len(lines))]
        if digests[: len(noted)] == noted:
            _check_more_lines(name, lines[len(noted) :], known, check)
            continue
        place = next(
            (i for i, (a, b) in enumerate(zip(digests, noted, strict=False)) if a != b), min(len(digests), len(noted))
        )
        step = _step_of(lines[place]) if place < len(lines) else None
        if len(digests) < len(noted) and digests == noted[: len(digests)]:
            check.find(name, f"it has {len(digests)} lines, and the ledger notes {len(noted)}", step)
        else:
            check.find(name, f"line {place + 1} is not the line that the ledger notes", step)


def _again(folder: Path, known: Known) -> Known:
    """The ledger as it is now."""
    return read_ledger(folder) or known


def _check_more_lines(name: str, more: list[bytes], known: Known, check: Check) -> None:
    """A kill, or a look at a run that trains, finds one line that is not noted yet; of decisions, those of the step under way."""
    newest = _newest_step(known)
    under_way = name == DECISIONS and {_step_of(line) for line in more} <= {newest, newest + 1}
    if more and (_ended(known) or (len(more) > 1 and not under_way)):
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
    about = ("start", "attempt", "step", "end")
    return next((entry.about for entry in reversed(known.entries) if entry.about in about), "") == "end"


def _check_files(folder: Path, known: Known, check: Check, going: bool) -> None:
    noted = {name: value for name, value in known.files.items() if value is not None}
    there = [name for name in noted if (folder / name).is_file()]
    digests = file_digests(folder, there)
    listed = listed_checkpoints(folder)
    newest = _newest_unnoted(known, listed, noted)
    for name, value in noted.items():
        step = _step_in(name)
        if (newest and name == _MANIFEST) or _not_begun(name, known):
            continue
        if name not in digests:
            if not _MAY_GO.fullmatch(name) or any(name.startswith(f"{each}/") for each in listed):
                check.find(name, "it is missing, and the ledger notes it", step)
        elif digests[name] != value and not (going and name in REPLACED and _soon_noted(folder, name)):
            begins = f"its SHA-256 begins with {digests[name][:_SHORT]}, and the ledger notes {value[:_SHORT]}"
            check.find(name, begins, step)
    if newest:
        check.notes.append(f"{newest} is in no entry yet: the run goes on, or was killed before it was noted")
        _check_manifest(folder, noted, newest, check)
    _check_unlisted(folder, known, noted, newest, check, going)


def _not_begun(name: str, known: Known) -> bool:
    """True for a file of an attempt whose start failed: the next one has its number, and writes its own."""
    match = re.match(r"attempts/(\d+)/", name)
    begun = (entry.content.get("attempt", 0) for entry in known.entries if entry.about == "attempt")
    return match is not None and int(match[1]) > max(begun, default=0)


def _soon_noted(folder: Path, name: str) -> bool:
    """True where the entry of a file that a training process has replaced comes after it."""
    for _ in range(_READ_AGAIN):
        known = read_ledger(folder)
        if known and file_digests(folder, [name])[name] == known.files.get(name):
            return True
        time.sleep(_PAUSE_S)
    return False


def _newest_unnoted(known: Known, listed: Mapping[str, int], noted: Mapping[str, str]) -> str | None:
    """The folder of a checkpoint of the newest step that the run had no time to note; not one of which a file is noted."""
    about = ("start", "attempt", "step", "checkpoint", "end")
    after = next((entry for entry in reversed(known.entries) if entry.about in about), None)
    if after is None or after.about != "step":
        return None
    for folder, step in listed.items():
        if step == after.step == _step_in(folder) and not any(name.startswith(f"{folder}/") for name in noted):
            return folder
    return None


def _check_manifest(folder: Path, noted: Mapping[str, str], newest: str, check: Check) -> None:
    """A manifest with a checkpoint that is in no entry: all others must be those that the ledger notes."""
    try:
        checkpoints = CheckpointStore(folder / "checkpoints").checkpoints()
    except UserError as error:
        check.find(_MANIFEST, str(error))
        return
    for one in checkpoints:
        name = one.folder.relative_to(folder).as_posix()
        if name == newest:
            continue
        if one.step != _step_in(name) or not any(each.startswith(f"{name}/") for each in noted):
            check.find(_MANIFEST, f"it lists {name} as step {one.step}, and no entry of the ledger does", one.step)
        elif fault := one.policy_damage():
            check.find(_MANIFEST, f"it does not fit what the ledger notes of {name}: {fault}", one.step)


def _check_unlisted(
    folder: Path, known: Known, noted: Mapping[str, str], unnoted: str | None, check: Check, going: bool
) -> None:
    """Files that are there and should be in an entry. A kill leaves those of one step, of the teacher's trial or of the end."""
    patterns = [*ADDED, *REPLACED, REPORTS, *checkpoint_parts(folder)]
    names = [name for name in found(folder, patterns, noted) if not (unnoted and name.startswith(f"{unnoted}/"))]
    if going:  # more may have been written, and noted, since the ledger was read
        known = _again(folder, known)
        names = [name for name in names if not known.files.get(name)]
    if not _ended(known):
        left = [name for name in names if _left_by_kill(name, known)]
        if len({_piece(name) for name in left}) > 1:
            left = []
        for name in left:
            check.notes.append(f"{name} is in no entry yet: the run goes on, or was killed before it was noted")
        names = [name for name in names if name not in left]
    for name in names:
        if not _not_begun(name, known):
            missing = "it is in no entry of the ledger: nothing of the run has written it, or entries are gone"
            check.find(name, missing, _step_in(name))


def _left_by_kill(name: str, known: Known) -> bool:
    """True for a file that a kill now may leave in no entry."""
    piece, newest = _piece(name), _newest_step(known)
    return piece in ("result.json", "teacher", newest, newest + 1)


def _piece(name: str) -> int | str:
    """The step that a file is written in; its name where it is in none."""
    if name.startswith("teacher"):
        return "teacher"
    step = None if name.startswith("evaluation/") else _step_in(name)
    return name if step is None else step


def _newest_step(known: Known) -> int:
    """The step that the run is at, by its newest attempt."""
    return next((step for step in map(_reached, reversed(known.entries)) if step is not None), 0)


def _reached(entry: Entry) -> int | None:
    """The step that the run is at after an entry; None where the entry does not tell."""
    told = {"step": entry.step, "evaluation": entry.step, "attempt": entry.content.get("from_step")}
    return told.get(entry.about)


def _step_in(name: str) -> int | None:
    match = re.search(r"step-(\d+)", name)
    return int(match[1]) if match else None
