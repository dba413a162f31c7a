"""Decisions that a run has taken by itself, for the page and the headline."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrs_ray.run.decisions import read_decisions


def decided(run: Path) -> list[dict[str, Any]]:
    """All of them in order, those of superseded attempts among them. UserError where the file is damaged."""
    return [asdict(decision) for decision in read_decisions(run)]


def counts(run: Path) -> dict[str, Any]:
    """Numbers of the guard's warnings and rollbacks, and its sentence where the last of its decisions was to stop."""
    guards = [decision for decision in read_decisions(run) if decision.by == "guard"]
    actions = Counter(decision.action for decision in guards)
    last = guards[-1] if guards else None
    return {
        "guard_warnings": actions["warn"],
        "rollbacks": actions["roll back"],
        "guard_stop": last.sentence if last and last.action == "stop" else None,
    }
