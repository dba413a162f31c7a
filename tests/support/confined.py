"""Programs run behind the walls of one route, and the same programs without any, for comparison."""

import subprocess
import sys
from pathlib import Path

import pytest

from openrs_ray.sandbox.inside.job import Route
from openrs_ray.sandbox.process import Task, run_together
from openrs_ray.sandbox.records import Limits, Ran, SandboxFailed

SHORT = Limits(cpu_s=3, wall_s=20, memory_gib=0.5, output_bytes=100_000, scratch_mib=8)


def run_on(route: Route, source: str, limits: Limits = SHORT, **more: str) -> Ran:
    """Skips the test where this machine does not have the route's walls."""
    walls = {"landlock", "seccomp"} if route == "process" else {"namespaces", "seccomp"}
    try:
        ended = run_together([Task(source, limits=limits, **more)], route, None)[0]
        ran = ended.ran()
    except SandboxFailed as error:
        pytest.skip(f"no {route} route here: {error}")
    if not walls <= set(ended.walls):
        pytest.skip(f"the {route} route has only {ended.walls} here")
    return ran


def run_plainly(source: str, folder: Path) -> str:
    """What the program prints as an ordinary process."""
    run = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )
    return run.stdout
