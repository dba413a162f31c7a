"""Where a run is, by its ledger."""

from pathlib import Path

from openrs_ray.run.ledger import Entry, Known, read_ledger


def ended(known: Known) -> bool:
    """True where nothing was begun after the run's end."""
    about = ("start", "attempt", "step", "end")
    return next((entry.about for entry in reversed(known.entries) if entry.about in about), "") == "end"


def newest_step(known: Known) -> int:
    """The step that the run is at, by its newest attempt."""
    return next((step for step in map(_reached, reversed(known.entries)) if step is not None), 0)


def _reached(entry: Entry) -> int | None:
    """The step that the run is at after an entry; None where the entry does not tell."""
    told = {"step": entry.step, "evaluation": entry.step, "attempt": entry.content.get("from_step")}
    return told.get(entry.about)


def as_it_is_now(folder: Path, known: Known) -> Known:
    """The ledger as it is now."""
    return read_ledger(folder) or known
