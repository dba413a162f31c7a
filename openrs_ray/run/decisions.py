"""Decisions that a run takes by itself: `decisions.jsonl`, one line each with its evidence, synced before it takes effect."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from openrs_ray.common.files import append_line, as_record, read_lines

FILE = "decisions.jsonl"


@dataclass(frozen=True, slots=True)
class Decision:
    """Example: Decision(200, 1, "stage", "next stage", {"temperature": (0.6, 0.8)}, {"truncated_share": 0.08}, "...")"""

    step: int
    """Last finished step; the decision holds from the next one on."""
    attempt: int
    by: Literal["stage", "guard", "reference", "stop"]
    action: str
    changes: dict[str, tuple[Any, Any]]
    """Value before and after, by setting."""
    evidence: dict[str, Any]
    sentence: str
    """For the user: what was done, and why."""
    to_step: int | None = None
    """Checkpoint that the run goes back to; None where it goes on."""


def note_decision(run_folder: Path, decision: Decision) -> None:
    append_line(run_folder / FILE, asdict(decision), synced=True)


def read_decisions(run_folder: Path) -> Sequence[Decision]:
    """All decisions in the order in which they were taken, those of superseded attempts among them. UserError when damaged."""
    return [as_record(Decision, line, run_folder / FILE) for line in read_lines(run_folder / FILE)]
