"""Compares figures in a file with the same ones computed again."""

import math
from collections.abc import Mapping
from typing import Any

from openrs_ray.algorithm.step_metrics import SHARES
from openrs_ray.audit.findings import Check


def compare_figures(
    check: Check,
    file: str,
    line: Mapping[str, Any],
    figures: Mapping[str, float],
    step: int | None,
    complete: bool = False,
) -> None:
    """Find every figure that the line has otherwise. `complete`: the line must have all of them."""
    for name, value in figures.items():
        if name not in line:
            if complete:
                check.find(file, f"{name} is {value:.9g} by the record, and the line lacks it", step)
        elif math.isnan(value) and line[name] == 0 and name.endswith(SHARES):
            continue  # older versions wrote 0 where nothing was judged
        elif not same(value, line[name]):
            check.find(file, f"{name} is {value:.9g} by the record, and the line has {line[name]}", step)


def same(value: float, logged: Any) -> bool:
    """True for equal numbers, and for null in the place of one that is not finite."""
    if not isinstance(logged, int | float):
        return logged is None and not math.isfinite(value)
    return math.isclose(value, logged, rel_tol=1e-9, abs_tol=1e-9)
