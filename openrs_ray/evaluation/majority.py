"""Classes of equal answers, for the majority vote; wrong ones that cannot be compared in time differ."""

from collections.abc import Sequence
from concurrent.futures import Future
from itertools import combinations

import numpy as np

from openrs_ray.evaluation.check import Answered
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.pool import CheckPool

Voted = tuple[Status, str | None]
"""Status and answer of a checked sample."""


def answer_classes(problems: Sequence[Sequence[Voted]], pool: CheckPool[Answered, Verdict]) -> np.ndarray:
    """int [problems, samples]: 0 correct, 1, 2, ... different wrong answers, -1 none. `pool` checks with the rules "boxed"."""
    forms = [sorted({a for status, a in row if status is Status.WRONG and a}) for row in problems]
    comparisons = [
        {(a, b): pool.submit(Answered(rf"\boxed{{{b}}}", (a,))) for a, b in combinations(row, 2)} for row in forms
    ]
    classes = np.full((len(problems), max(map(len, problems), default=0)), -1)
    for number, row in enumerate(problems):
        classed = _merged(forms[number], comparisons[number])
        for sample, (status, answer) in enumerate(row):
            if status is Status.CORRECT:
                classes[number, sample] = 0
            elif status is Status.WRONG and answer:
                classes[number, sample] = 1 + classed[answer]
    return classes


def _merged(forms: Sequence[str], equal: dict[tuple[str, str], "Future[Verdict]"]) -> dict[str, int]:
    """A number for each form, the same for equal ones (transitively)."""
    classed = {form: number for number, form in enumerate(forms)}
    for (a, b), future in equal.items():
        if future.result().status is Status.CORRECT and classed[a] != classed[b]:
            gone, kept = classed[b], classed[a]
            classed = {form: kept if number == gone else number for form, number in classed.items()}
    return classed
