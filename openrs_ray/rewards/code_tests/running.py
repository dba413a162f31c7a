"""Runs a program's tests in sandboxes: statements with a referee beside it, streams one run each."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files

from openrs_ray.rewards.code_tests.shapes import Statements, Streams, Tests
from openrs_ray.sandbox.process import BESIDE, Task
from openrs_ray.sandbox.program import run_program, run_programs
from openrs_ray.sandbox.records import Limits, Outcome, Ran

_REFEREE = Limits(cpu_s=10.0, memory_gib=1.0, output_bytes=1 << 20)
_LONGER_S = 10.0
"""The referee outlives the program, to say that it has ended."""
_TOLERANCE = Decimal("1e-6")


@dataclass(frozen=True, slots=True)
class Result:
    """Example: Result(passed=2, tests=3, detail="test 2: an assertion does not hold")"""

    passed: int
    tests: int
    detail: str = ""
    """Why the first test that failed did; no expected value."""
    unusable: str = ""
    """Why the tests cannot be run."""


def run_tests(program: str, tests: Tests, limits: Limits, all_tests: bool = True) -> Result:
    """Runs tests until one fails, or all with `all_tests`. SandboxFailed if the machine cannot."""
    return (
        _statements(program, tests, limits)
        if isinstance(tests, Statements)
        else _streams(program, tests, limits, all_tests)
    )


def _statements(program: str, tests: Statements, limits: Limits) -> Result:
    """The limits are those of all tests together."""
    answers, program_end = os.pipe()
    program_requests, requests = os.pipe()
    own = json.dumps({"setup": tests.setup, "tests": tests.tests})
    referee = Task(
        _inside("referee"),
        files={"wire.py": _inside("wire"), "tests.json": own},
        limits=replace(_REFEREE, wall_s=limits.wall_s + _LONGER_S),
        channel=(answers, requests),
    )
    subject = Task(
        _inside("subject"),
        files={"wire.py": _inside("wire"), "program.txt": program},
        limits=limits,
        channel=(program_requests, program_end),
    )
    judged, ran = run_programs([referee, subject])
    return _result(judged, ran, len(tests.tests))


def _result(referee: Ran, program: Ran, tests: int) -> Result:
    said = [json.loads(line) for line in referee.stdout.splitlines() if line.endswith("}")]
    passed = sum(one.get("passed") is True for one in said)
    unusable = next((one["unusable"] for one in said if "unusable" in one), "")
    why = next((f"test {place}: {one['why']}" for place, one in enumerate(said, start=1) if "why" in one), "")
    why = next((one["failed"] for one in said if "failed" in one), why)
    if passed < tests and not unusable:
        ended = program.outcome not in (Outcome.FINISHED, Outcome.FAILED) and program.detail != BESIDE
        why = program.detail if ended else why or f"the tests did not end: {referee.detail}"
    return Result(passed, tests, _line(why), _line(unusable))


def _line(text: str) -> str:
    """Without what a program may put into its exceptions: line breaks, lone surrogates."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _streams(program: str, tests: Streams, limits: Limits, all_tests: bool) -> Result:
    """The limits are those of each run; after a run that met one the others are not tried."""
    passed, detail = 0, ""
    for place, (given, expected) in enumerate(tests.pairs, start=1):
        ran = run_program(program, stdin=given, limits=limits)
        fits = ran.outcome is Outcome.FINISHED and same_output(ran.stdout, expected)
        passed += fits
        detail = detail or ("" if fits else f"test {place}: {ran.detail or 'another output was expected'}")
        if not fits and (not all_tests or ran.outcome not in (Outcome.FINISHED, Outcome.FAILED)):
            break
    return Result(passed, len(tests.pairs), detail)


def same_output(found: str, expected: str) -> bool:
    """Line by line, without white space at the ends; words that are decimal fractions may differ by a millionth."""
    lines, wanted = ([line.split() for line in text.strip().splitlines()] for text in (found, expected))
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _same_line(found: list[str], expected: list[str]) -> bool:
    return len(found) == len(expected) and all(map(_same_word, found, expected))


def _same_word(found: str, expected: str) -> bool:
    if found == expected:
        return True
    if "." not in expected:
        return False
    try:
        difference = abs(Decimal(found) - Decimal(expected))
        return bool(difference <= _TOLERANCE * max(Decimal(1), abs(Decimal(expected))))
    except (InvalidOperation, ValueError):
        return False


@cache
def _inside(name: str) -> str:
    return files("openrs_ray.rewards.code_tests.inside").joinpath(f"{name}.py").read_text(encoding="utf-8")
