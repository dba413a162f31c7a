"""Compares a run's files with their newest entries in the ledger."""

import re
import time
from collections.abc import Container, Mapping
from pathlib import Path

from openrs_ray.audit.findings import SHORT, Check
from openrs_ray.audit.heads import REPORTS
from openrs_ray.audit.reached import as_it_is_now, ended, newest_step
from openrs_ray.errors import UserError
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.ledger import Known, read_ledger
from openrs_ray.run.ledger_files import ADDED, REPLACED, checkpoint_parts, file_digests, found, listed_checkpoints

_MAY_GO = re.compile(r"report\.html|export/.*|checkpoints/step-.*")
"""Files that a run, or its owner, may remove; the manifest says which checkpoints there are."""
_WRITTEN_ONCE = re.compile(
    r"(teacher/)?completions/.*|evaluation/.*\.parquet|checkpoints/step-\d+/(policy|adapter)/.*\.(safetensors|json|jinja)"
)
_MANIFEST = "checkpoints/manifest.json"
_READ_AGAIN, _PAUSE_S = 5, 1.0
"""Number of times, and seconds between them, that what a training process has just replaced is compared with the ledger."""


def check_files(folder: Path, known: Known, check: Check, going: bool) -> None:
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
            begins = f"its SHA-256 begins with {digests[name][:SHORT]}, and the ledger notes {value[:SHORT]}"
            check.find(name, begins, step)
    if newest:
        check.notes.append(f"{newest} is in no entry yet: the run goes on, or was killed before it was noted")
        _check_manifest(folder, noted, newest, check)
    _check_unlisted(folder, known, noted, newest, check, going)


def check_written_once(known: Known, check: Check) -> None:
    """Find files that nothing writes again and of which the ledger has two digests, unless the file was gone between them."""
    digests: dict[str, str | None] = {}
    begun: set[int] = set()
    for entry in known.entries:
        for name, value in entry.files.items():
            before = digests.get(name)
            saved_again = entry.about == "checkpoint" and entry.step == _step_in(name)  # as for a new reference
            if value and before and value != before and not saved_again and _written_once(name, begun):
                again = (
                    f"entry {entry.number} ({entry.about}) notes {value[:SHORT]}, and one before it {before[:SHORT]}"
                )
                check.find(name, f"{again}: nothing that this project does writes it again", _step_in(name))
        digests |= entry.files
        if entry.about == "attempt":
            begun.add(int(entry.content.get("attempt", 0)))


def _written_once(name: str, begun: Container[int]) -> bool:
    """`begun`: attempts so far. The files of an attempt are written anew until a start of its number does not fail."""
    attempt = re.match(r"attempts/(\d+)/", name)
    return int(attempt[1]) in begun if attempt else _WRITTEN_ONCE.fullmatch(name) is not None


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
        known = as_it_is_now(folder, known)
        names = [name for name in names if not known.files.get(name)]
    if not ended(known):
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
    piece, newest = _piece(name), newest_step(known)
    return piece in ("result.json", "teacher", newest, newest + 1)


def _piece(name: str) -> int | str:
    """The step that a file is written in; its name where it is in none."""
    if name.startswith("teacher"):
        return "teacher"
    step = None if name.startswith("evaluation/") else _step_in(name)
    return name if step is None else step


def _step_in(name: str) -> int | None:
    match = re.search(r"step-(\d+)", name)
    return int(match[1]) if match else None
