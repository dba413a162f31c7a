"""Completions by page (stub)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Query:
    phase: Literal["train", "replaced", "evaluation"] = "train"
    steps: tuple[int, int] | None = None
    status: tuple[str, ...] = ()
    reward: tuple[float, float] | None = None
    length: tuple[int, int] | None = None
    problem: int | None = None
    task: str | None = None
    text: str | None = None
    order: Literal["step", "best", "worst", "longest", "shortest", "most_changed"] = "step"


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0


def find(run: Path, query: Query, offset: int, limit: int) -> Page:
    return Page()


def one(
    run: Path, phase: str, step: int, attempt: int, position: int, sample: int, tokenizer: Any = None
) -> dict[str, Any]:
    return {}
