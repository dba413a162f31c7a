"""Classes of equal answers, for the majority vote; wrong ones that cannot be compared in time differ.

Programs are equal where their texts are: none can be run as the tests of another.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from itertools import combinations

import numpy as np

from openrs_ray.config.answer import Answer
from openrs_ray.evaluation.check import MATHEMATICS, Answered
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.pool import CheckPool

Voted = tuple[Status, str | None]
"""Status and answer of a checked sample."""


def answer_classes(
    problems: Sequence[Sequence[Voted]], pool: CheckPool[Answered, Verdict], answer: Answer = MATHEMATICS
) -> np.ndarray:
    """int [problems, samples]: 0 correct, 1, 2, ... different wrong answers, -1 none. `pool` checks with the rules "boxed"."""
    how, form_of = answer.between_answers, _lines if answer.kind == "code" else str
    forms = [sorted({form_of(a) for status, a in row if status is Status.WRONG and a}) for row in problems]
    comparisons = [
        {
            (a, b): pool.submit(Answered(rf"\boxed{{{b}}}", (a,), answer=how))
            for a, b in combinations(row, 2)
            if answer.kind != "code"
        }
        for row in forms
    ]
    classes = np.full((len(problems), max(map(len, problems), default=0)), -1)
    for number, row in enumerate(problems):
        classed = _merged(forms[number], comparisons[number])
        for sample, (status, given) in enumerate(row):
            if status is Status.CORRECT:
                classes[number, sample] = 0
            elif status is Status.WRONG and given:
                classes[number, sample] = 1 + classed[form_of(given)]
    return classes


def _lines(program: str) -> str:
    """Without empty lines and spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in program.splitlines() if line.strip())


def _merged(forms: Sequence[str], equal: dict[tuple[str, str], "Future[Verdict]"]) -> dict[str, int]:
    """A number for each form, the same for equal ones (transitively)."""
    classed = {form: number for number, form in enumerate(forms)}
    for (a, b), future in equal.items():
        if future.result().status is Status.CORRECT and classed[a] != classed[b]:
            gone, kept = classed[b], classed[a]
            classed = {form: kept if number == gone else number for form, number in classed.items()}
    return classed
