"""Heads of the ledger that were told to others: every one must be a head that the ledger had."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrs_ray.audit.findings import SHORT, Check
from openrs_ray.common.files import read_json
from openrs_ray.errors import UserError
from openrs_ray.report.static import read_page
from openrs_ray.run.ledger import FILE, Known

REPORTS = "evaluation/**/report.json"


def check_heads(folder: Path, known: Known, check: Check, head: str | None) -> None:
    """Every head that was told to somebody must be one that the ledger had."""
    ever = {entry.digest for entry in known.entries}
    told = dict(_told(folder, check))
    if head:
        told["--head"] = head
    for where, value in told.items():
        if not any(digest.startswith(value) for digest in ever):
            check.find(
                FILE, f"{where} names the head {value[:SHORT]}, which no entry has: entries were changed or removed"
            )
    if head:
        _note_changes_after(known, head, check)


def _note_changes_after(known: Known, head: str, check: Check) -> None:
    """Say which files the given head is not about any more."""
    place = next((n for n, entry in enumerate(known.entries) if entry.digest.startswith(head)), len(known.entries))
    at_head: dict[str, str | None] = {}
    for entry in known.entries[: place + 1]:
        at_head |= entry.files
    later = {
        name: entry
        for entry in known.entries[place + 1 :]
        for name, value in entry.files.items()
        if at_head.get(name) not in (None, value)
    }
    for name, entry in later.items():
        changed = (
            f"{name} was changed after the head that was given, the last time by entry {entry.number} ({entry.about})"
        )
        check.notes.append(f"{changed}: the head says nothing about it as it is now")


def _told(folder: Path, check: Check) -> Iterator[tuple[str, str]]:
    """Heads in reports, by file."""
    for path in sorted(folder.glob(REPORTS)):
        content = _readable(path, check, folder)
        if isinstance(value := (content.get("ledger") or {}).get("digest"), str):
            yield path.relative_to(folder).as_posix(), value
    page = folder / "report.html"
    for run in (read_page(page) or {}).get("runs", []) if page.exists() else []:
        if run.get("name") == folder.name and (value := (run.get("ledger") or {}).get("digest")):
            yield page.name, value
    for card in sorted((folder / "export").glob("*/README.md")):
        if match := re.search(
            r"chain of digests[^\n]*`([0-9a-f]{64})`", card.read_text(encoding="utf-8", errors="replace")
        ):
            yield card.relative_to(folder).as_posix(), match[1]


def _readable(path: Path, check: Check, folder: Path) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except UserError as error:
        check.find(path.relative_to(folder).as_posix(), str(error))
        return {}
