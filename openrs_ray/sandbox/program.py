"""Runs untrusted Python programs behind the walls that this machine gives.

No network, no other process, no file but Python's own and a scratch folder, limits of time, memory, processes and output.
Everything a program started has ended when the call returns, and ends when the calling process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from openrs_ray.sandbox.inside.job import Route
from openrs_ray.sandbox.process import Task, run_together
from openrs_ray.sandbox.records import Limits, Outcome, Ran, SandboxFailed, Strength

_TRIAL = Task("print(6 * 7)", limits=Limits(cpu_s=20.0, wall_s=60.0))


def run_program(
    source: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: Limits | None = None
) -> Ran:
    """Runs one program until it ends or meets a limit. SandboxFailed if the machine could not run it.

    `files`: texts by their names in the program's working folder. Any thread and any process may call it.

    Example: run_program("print(input()[::-1])", stdin="abc").stdout == "cba\\n"
    """
    return run_programs([Task(source, stdin, files or {}, limits or Limits())])[0]


def run_programs(tasks: Sequence[Task]) -> list[Ran]:
    """Runs programs side by side until the first of the list ends, which ends the others."""
    found = strength()
    return [one.ran() for one in run_together(tasks, found.route, found.walls)]


@cache
def strength() -> Strength:
    """Walls around programs here, found by running one. SandboxFailed if none can be run at all."""
    problems = list[str]()
    for route in _routes():
        try:
            return _trial(route)
        except SandboxFailed as error:
            problems.append(f"{route}: {error}")
    raise SandboxFailed(f"This machine cannot run programs in a sandbox ({'; '.join(problems)}).")


def _routes() -> tuple[Route, ...]:
    return ("privileged", "user", "other_user", "process") if os.geteuid() == 0 else ("user", "process")


def _trial(route: Route) -> Strength:
    trial = run_together([_TRIAL], route, None)[0]
    ran = trial.ran()
    if ran.outcome is not Outcome.FINISHED or ran.stdout.strip() != "42":
        raise SandboxFailed(f"a program that prints 42 {ran.outcome}: {ran.detail}")
    return Strength(route, trial.walls)
