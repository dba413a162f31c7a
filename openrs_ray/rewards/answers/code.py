"""Checks answers that are programs: the last Python block of a completion, judged by the problem's tests in a sandbox.

A program that uses up its time or its memory is wrong; SandboxFailed, where the machine cannot run it, is an error.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from openrs_ray.records import Status
from openrs_ray.rewards.answers.place import final_part
from openrs_ray.rewards.code_tests.running import run_tests
from openrs_ray.rewards.code_tests.shapes import Statements, Streams, Tests, Unreadable, read_tests
from openrs_ray.rewards.records import CheckedProgram, JudgeItem, UnfinishedReasoning
from openrs_ray.sandbox.records import Limits

Answer = Any
"""A config's section `answer`."""
Row = Mapping[str, Any]
Gold = tuple[str, ...]

WARM_UP = JudgeItem("```python\ndef f():\n    return 1\n```", 9, "stop", ("assert f() == 1",))
"""It finds out which walls this machine gives."""
_WALL_FACTOR = 6
"""Seconds by the clock for each of computing, as in the pool that judges."""
_STARTS_S = 60.0
_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "")


def checker(answer: Answer, rewards: Any) -> Callable[[JudgeItem], CheckedProgram]:
    """`rewards`: weights and `unfinished_reasoning`. With a weight on `tests_passed` no test is left out."""
    return partial(_check, answer, "tests_passed" in rewards.weights, rewards.unfinished_reasoning)


def readable(gold: Gold, row: Row) -> bool:
    """True for tests that are Python, or inputs with outputs."""
    try:
        tests = read_tests(gold, row)
        if isinstance(tests, Statements):
            for text in (tests.setup, *tests.tests):
                ast.parse(text)
    except (Unreadable, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def shown_tests(gold: Gold, row: Row, most: int) -> str:
    """Text behind a problem that shows its first assert statements, which name the function; empty for other tests."""
    if not readable(gold, row):
        return ""
    tests = read_tests(gold, row)
    asserts = [text for text in tests.tests if text.startswith("assert")] if isinstance(tests, Statements) else []
    if not asserts or not most:
        return ""
    return "\n\nYour code should pass tests such as:\n```python\n" + "\n".join(asserts[:most]) + "\n```"


def deadline_s(answer: Answer, item: JudgeItem) -> float:
    """Time by the clock after which a check hangs for some other reason than its program."""
    try:
        tests = _first(read_tests(item.gold, item.row), answer)
    except Unreadable:
        return _STARTS_S
    runs = len(tests.pairs) if isinstance(tests, Streams) else 1
    return _STARTS_S + runs * (1 + _limits(answer).wall_s)


def program_in(text: str, unfinished_reasoning: UnfinishedReasoning = "no_answer") -> str | None:
    """The last Python block behind the reasoning, or the last without language; None where there is none that ends.

    Example: program_in("Like this:\\n```python\\nprint(1)\\n```") == "print(1)\\n"
    """
    part = final_part(text, unfinished_reasoning)
    blocks = [] if part is None else _blocks(part)
    named = [content for language, content in blocks if language]
    found = named or [content for _, content in blocks]
    return found[-1] if found else None


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each block of Python, or of no language, that ends."""
    blocks = list[tuple[str, str]]()
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["fence"].startswith(opened["fence"]) and not fence["language"]:
            language = opened["language"].lower()
            if language in _PYTHON:
                content = text[opened.end() + 1 : fence.start()]
                blocks.append((language, textwrap.dedent(content) if opened[0][0].isspace() else content))
            opened = None
    return blocks


def _check(
    answer: Answer, all_tests: bool, unfinished_reasoning: UnfinishedReasoning, item: JudgeItem
) -> CheckedProgram:
    try:
        tests = _first(read_tests(item.gold, item.row), answer)
    except Unreadable as error:
        return CheckedProgram(Status.UNPARSEABLE_GOLD, None, detail=str(error))
    program = program_in(item.text, unfinished_reasoning)
    if program is None:
        return CheckedProgram(Status.NO_ANSWER, None)
    result = run_tests(program, tests, _limits(answer), all_tests)
    if result.unusable:
        return CheckedProgram(Status.UNPARSEABLE_GOLD, program, detail=result.unusable)
    status = Status.CORRECT if result.passed == result.tests else Status.WRONG
    return CheckedProgram(status, program, result.passed / result.tests, result.detail)


def _first(tests: Tests, answer: Answer) -> Tests:
    if isinstance(tests, Streams):
        return Streams(tests.pairs[: answer.most_tests])
    return Statements(tests.setup, tests.tests[: answer.most_tests])


def _limits(answer: Answer) -> Limits:
    return Limits(cpu_s=answer.cpu_s, wall_s=_WALL_FACTOR * answer.cpu_s, memory_gib=answer.memory_gib)
