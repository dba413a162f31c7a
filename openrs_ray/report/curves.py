"""The figures of all steps by column, thinned where there are more steps than a screen can show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_POINTS = 2048
_SKIPPED = ("step", "attempt", "phase")
_DIGITS = 6
"""Significant ones; a screen shows fewer."""


def curves(lines: Sequence[Mapping[str, Any]], most: int = MOST_POINTS) -> dict[str, Any]:
    """Columns of the lines of `metrics.jsonl`, which are in order: {"bucket": 4, "step": [...], "columns": {name: [...]}}.

    With more than `most` lines each bucket of 2, 4, 8, ... steps leaves two points of every curve: its smallest and its largest
    value, in their order, at the bucket's first and last step. A bucket holds the same steps however many follow.
    """
    names = list(dict.fromkeys(name for line in lines for name in line if name not in _SKIPPED))
    steps = [int(line["step"]) for line in lines]
    values = np.array([[_number(line.get(name)) for name in names] for line in lines]).reshape(len(lines), len(names))
    bucket = bucket_size(len(lines), most)
    if bucket > 1:
        steps, values = _extremes(np.array(steps), values, bucket)
    known = [place for place in range(len(names)) if not np.isnan(values[:, place]).all()]
    return {
        "bucket": bucket,
        "step": steps,
        "columns": {names[place]: [_rounded(value) for value in values[:, place].tolist()] for place in known},
    }


def bucket_size(steps: int, most: int = MOST_POINTS) -> int:
    """Steps that two points stand for: a power of two, 1 where every step is drawn."""
    bucket = 1
    while steps * (2 / bucket if bucket > 1 else 1) > most:
        bucket *= 2
    return bucket


def tail(whole: Mapping[str, Any], points: int) -> dict[str, Any]:
    """The part that a page with `points` points of the same curves lacks: the last bucket may have changed."""
    start = max(0, points - (2 if whole["bucket"] > 1 else 0))
    columns = {name: values[start:] for name, values in whole["columns"].items()}
    return {"bucket": whole["bucket"], "from": start, "step": whole["step"][start:], "columns": columns}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _rounded(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _extremes(steps: np.ndarray, values: np.ndarray, bucket: int) -> tuple[list[int], np.ndarray]:
    """Steps [points] and values [points, columns] of each bucket's extremes."""
    kept_steps: list[int] = []
    kept: list[np.ndarray] = []
    for start in range(0, len(steps), bucket):
        own = values[start : start + bucket]
        ends = [int(steps[start]), int(steps[start + len(own) - 1])]
        if len(own) == 1:
            kept_steps.append(ends[0])
            kept.append(own[0])
            continue
        missing = np.isnan(own)
        least, most = np.where(missing, np.inf, own).argmin(axis=0), np.where(missing, -np.inf, own).argmax(axis=0)
        columns = np.arange(own.shape[1])
        kept_steps += ends
        kept += [own[np.minimum(least, most), columns], own[np.maximum(least, most), columns]]
    return kept_steps, np.array(kept)
