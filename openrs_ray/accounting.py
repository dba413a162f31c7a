"""Which group was trained on at each position of the data order, at which step, sampled by which policy versions."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.data.order import Order
from openrs_ray.record import current_rows


@dataclass(frozen=True, slots=True)
class TrainedGroup:
    """Example: TrainedGroup(position=7003, epoch=1, problem=512, step=584, attempt=2, versions=(582, 583), completions=6)"""

    position: int
    epoch: int
    problem: int
    """Index of the problem, as the record has it."""
    step: int
    attempt: int
    versions: tuple[int, int]
    """Oldest and newest policy version that sampled a token of it."""
    completions: int


def trained_groups(run_folder: Path, order: Order) -> list[TrainedGroup]:
    """One entry per position and step that counts, by position: a position that was trained on twice has two."""
    rows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    columns = ["position", "step", "attempt", "problem_index", "versions"]
    for row in current_rows(run_folder, columns=columns).to_pylist():
        rows[row["position"], row["step"]].append(row)
    return [_group(position, step, rows[position, step], order) for position, step in sorted(rows)]


def misplaced(groups: list[TrainedGroup], order: Order) -> list[int]:
    """Positions at which another problem was trained on than the order has there."""
    return [group.position for group in groups if group.problem != order.index(group.position)]


def _group(position: int, step: int, rows: list[dict[str, Any]], order: Order) -> TrainedGroup:
    versions = [span["version"] for row in rows for span in row["versions"]]
    return TrainedGroup(
        position=position,
        epoch=position // order.problems,
        problem=rows[0]["problem_index"],
        step=step,
        attempt=rows[0]["attempt"],
        versions=(min(versions), max(versions)),
        completions=len(rows),
    )
