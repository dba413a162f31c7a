"""Compares the lines of append-only files with the ledger."""

import json
from pathlib import Path

from openrs_ray.audit.findings import Check
from openrs_ray.audit.reached import as_it_is_now, ended, newest_step
from openrs_ray.run.decisions import FILE as DECISIONS
from openrs_ray.run.ledger import Known
from openrs_ray.run.ledger_files import APPENDED, digest, whole_lines


def check_lines(folder: Path, known: Known, check: Check, going: bool) -> None:
    for name in APPENDED:
        noted, path = known.lines.get(name, []), folder / name
        lines = whole_lines(path.read_bytes()) if path.exists() else []
        digests = [digest(line) for line in lines]
        if going:  # more may have been written, and noted, since the ledger was read
            noted = as_it_is_now(folder, known).lines.get(name, [])[: max(len(noted), len(lines))]
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


def _check_more_lines(name: str, more: list[bytes], known: Known, check: Check) -> None:
    """A kill, or a look at a run that trains, finds one line that is not noted yet; of decisions, those of the step under way."""
    newest = newest_step(known)
    under_way = name == DECISIONS and {_step_of(line) for line in more} <= {newest, newest + 1}
    if more and (ended(known) or (len(more) > 1 and not under_way)):
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
