"""Checks of an audit, with the findings of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["whole", "finding", "not checked"]
SHORT = 12
"""Characters of a digest that a finding shows."""
_MOST = 20
"""Findings of one kind that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Example: Finding("metrics.jsonl", "accuracy is 0.9, and the record gives 0.5", step=50)"""

    file: str
    """In the run's folder."""
    what: str
    """Expectation and fact, in words."""
    step: int | None = None

    def __str__(self) -> str:
        return f"{self.file}{f', step {self.step}' if self.step is not None else ''}: {self.what}"


@dataclass(slots=True)
class Check:
    """One check of an audit, filled while it goes on."""

    name: str
    looked_at: str = ""
    """Counts of the things that were checked. Example: "1,024 completions" """
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences about things that could not be checked, and why."""
    left_out: int = 0
    """Findings that are counted only."""

    @property
    def state(self) -> State:
        if self.findings:
            return "finding"
        return "whole" if self.looked_at else "not checked"

    def find(self, file: str, what: str, step: int | None = None) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(Finding(file, what, step))
        else:
            self.left_out += 1


def of_all(checks: Sequence[Check]) -> State:
    """The outcome of an audit by its checks, the chain's first: without a chain the files may have been changed together."""
    if any(check.findings for check in checks):
        return "finding"
    return checks[0].state if checks else "not checked"
