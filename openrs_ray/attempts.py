"""Attempts: the starts of the driver on one run, and which rows of earlier ones still count.

Invariant: an attempt has its line in `attempts.jsonl`, synced, before it writes anything else. What attempt `a` wrote
about step `s` is superseded when a later attempt started from a checkpoint before `s`, because that one does step `s`
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from openrs_ray.atomic import append_line, read_lines

FILE = "attempts.jsonl"


def start_attempt(run_folder: Path, from_step: int) -> int:
    """Note that the driver starts at the checkpoint of `from_step` (0: the start model).

    Returns the attempt's number: 1, 2, ...
    """
    attempt = max(read_attempts(run_folder), default=0) + 1
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"attempt": attempt, "from_step": from_step, "started": started}
    append_line(run_folder / FILE, record, synced=True)
    return attempt


def read_attempts(run_folder: Path) -> dict[int, int]:
    """The step that each attempt started from, by attempt."""
    return {int(line["attempt"]): int(line["from_step"]) for line in read_lines(run_folder / FILE)}


def superseded(attempts: Mapping[int, int], attempt: int, step: int) -> bool:
    """Whether a later attempt did `step` again."""
    return any(later > attempt and from_step < step for later, from_step in attempts.items())
