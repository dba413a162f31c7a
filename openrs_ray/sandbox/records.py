"""Records of a confined program: its limits, how it ended, and the walls around it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from openrs_ray.sandbox.inside.job import Route


class Outcome(StrEnum):
    FINISHED = "finished"
    """Exit code 0."""
    FAILED = "failed"
    """Another exit code, or a signal."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    """It wrote more than it may."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Example: Limits(cpu_s=2.0, memory_gib=0.5)"""

    cpu_s: float = 5.0
    """Computing, in whole seconds rounded up."""
    wall_s: float = 30.0
    """By the clock, for programs that sleep; generous, so that a loaded machine does not change verdicts."""
    memory_gib: float = 1.0
    """Address space of each process."""
    processes: int = 1
    """1 allows threads, but no further process; more need namespaces, and count threads as well."""
    output_bytes: int = 1 << 20
    """For stdout and stderr each."""
    scratch_mib: int = 16


@dataclass(frozen=True, slots=True)
class Ran:
    """Example: Ran(Outcome.FINISHED, stdout="4\\n", stderr="", seconds=0.03, cpu_s=0.02, exit_code=0, detail="")"""

    outcome: Outcome
    stdout: str
    stderr: str
    seconds: float
    cpu_s: float
    exit_code: int | None
    """None if it was killed."""
    detail: str
    """Sentence about its end; empty when it finished."""


WALLS = {
    "namespaces": "namespaces of their own (processes, network, files)",
    "other_user": "a user of their own",
    "landlock": "Landlock's file rights",
    "seccomp": "a filter of system calls",
}


@dataclass(frozen=True, slots=True)
class Strength:
    """Walls that this machine gives around a program."""

    route: Route
    walls: list[str]
    """Of the names in `WALLS`."""

    @property
    def is_full(self) -> bool:
        return {"namespaces", "seccomp"} <= set(self.walls)

    @property
    def sentence(self) -> str:
        """Says what is missing; empty at full strength."""
        missing = [meaning for name, meaning in WALLS.items() if name not in self.walls]
        return "" if self.is_full else f"Programs run behind weaker walls here, without {', without '.join(missing)}."


class SandboxFailed(RuntimeError):
    """The machine could not run the program; no fault of the program."""
