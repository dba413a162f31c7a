"""What became of each position of the data order: when it was trained on or replaced, sampled by which policy versions."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.data.order import Order
from openrs_ray.run.completion_files import Phase
from openrs_ray.run.completions import current_rows


@dataclass(frozen=True, slots=True)
class UsedGroup:
    """Example: UsedGroup(7003, epoch=1, problem=512, phase="train", step=584, attempt=2, versions=(582, 583), completions=6)"""

    position: int
    epoch: int
    problem: int
    """Index of the problem, as the record has it."""
    phase: Phase
    """train, or replaced: sampled, found to be without spread, and left out."""
    step: int
    attempt: int
    versions: tuple[int, ...]
    """Oldest and newest policy version that sampled a token of it; empty where no row says."""
    completions: int


def used_groups(run_folder: Path, order: Order) -> list[UsedGroup]:
    """One entry per position and step that counts, by position: a position that was used twice has two."""
    columns = ["position", "step", "attempt", "phase", "problem_index", "versions"]
    phases: tuple[Phase, ...] = ("train", "replaced")
    found = [row for phase in phases for row in current_rows(run_folder, phase, columns).to_pylist()]
    steps = {row["step"] for row in found if row["phase"] == "train"}
    rows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        if row["step"] in steps:  # what a step replaced is written before the rest of it
            rows[row["position"], row["step"]].append(row)
    return [_group(position, step, rows[position, step], order) for position, step in sorted(rows)]


def misplaced(groups: list[UsedGroup], order: Order) -> list[int]:
    """Positions at which another problem was used than the order has there."""
    return [group.position for group in groups if group.problem != order.index(group.position)]


def _group(position: int, step: int, rows: list[dict[str, Any]], order: Order) -> UsedGroup:
    versions = [span["version"] for row in rows for span in row["versions"]]
    return UsedGroup(
        position=position,
        epoch=position // order.problems,
        problem=rows[0]["problem_index"],
        phase=rows[0]["phase"],
        step=step,
        attempt=rows[0]["attempt"],
        versions=(min(versions), max(versions)) if versions else (),
        completions=len(rows),
    )
