"""Tests of a problem in the shapes of public data sets: assert statements, or inputs with their outputs.

MBPP has a list of assert statements, HumanEval a function `check` with an `entry_point`; APPS, TACO and LiveCodeBench have
JSON with inputs and outputs, of a whole program or of one function.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Statements:
    """Python that asserts something of what the program defines."""

    setup: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Streams:
    """Text for stdin, and the output that belongs to it."""

    pairs: tuple[tuple[str, str], ...]


Tests = Statements | Streams


class Unreadable(ValueError):
    """No tests that could be run."""


def read_tests(gold: Sequence[str], row: Row) -> Tests:
    """Tests in a gold; columns `test_setup_code`, `test_imports`, `entry_point` and `fn_name` belong to them. Unreadable."""
    content = _json(gold[0]) if len(gold) == 1 else None
    if isinstance(content, str):
        content = _json(content)
    is_json = isinstance(content, dict | list)
    found = _of_json(content, row) if is_json else Statements(_setup(row), _statements(gold, row))
    if not (found.tests if isinstance(found, Statements) else found.pairs):
        raise Unreadable("there are no tests")
    return found


def _setup(row: Row) -> str:
    imports = row.get("test_imports") or []
    lines = [imports] if isinstance(imports, str) else list(imports)
    return "\n".join([*map(str, lines), str(row.get("test_setup_code") or "")])


def _statements(gold: Sequence[str], row: Row) -> tuple[str, ...]:
    entry = row.get("entry_point")
    calls = [f"{text}\ncheck({entry})\n" if entry and "def check(" in text else text for text in gold]
    tests = tuple(text for text in calls if text.strip())
    if tests and not any(_asks(test) for test in tests):
        raise Unreadable("the tests assert nothing, so any program would pass")
    return tests


def _asks(test: str) -> bool:
    """False for what can only pass, such as the `42` of a column that holds no tests, or a `check` that nothing calls."""
    try:
        done = [one for one in ast.parse(test).body if not isinstance(one, ast.FunctionDef | ast.ClassDef)]
        return any(isinstance(node, ast.Assert | ast.Raise | ast.Call) for one in done for node in ast.walk(one))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # found where it is run


def _of_json(content: Any, row: Row) -> Tests:
    if isinstance(content, list) and all(isinstance(one, str) for one in content):
        return Statements(_setup(row), _statements(content, row))
    cases = content.get("test_cases", content) if isinstance(content, dict) else content
    if isinstance(cases, dict):
        inputs, outputs = cases.get("inputs"), cases.get("outputs")
    else:
        inputs, outputs = _column(cases, "input"), _column(cases, "output")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise Unreadable("JSON tests have as many inputs as outputs")
    name = _function_name(cases, row)
    if name is None:
        return Streams(tuple((_text(one), _text(other)) for one, other in zip(inputs, outputs, strict=True)))
    calls = [_call(name, one, other) for one, other in zip(inputs, outputs, strict=True)]
    return Statements(f"{_setup(row)}\n{_CALLED}", tuple(calls))


def _column(cases: Any, name: str) -> Any:
    """None unless each case is an object that has it."""
    is_table = isinstance(cases, list) and all(isinstance(case, dict) and name in case for case in cases)
    return [case[name] for case in cases] if is_table else None


def _function_name(cases: Any, row: Row) -> str | None:
    """Function under test; None where the whole program is."""
    if isinstance(cases, list) and not all(case.get("testtype") == "functional" for case in cases):
        return None
    own = cases.get("fn_name") if isinstance(cases, dict) else None
    metadata = row.get("metadata")
    read = _json(metadata) if isinstance(metadata, str) else metadata
    name = own or row.get("fn_name") or (read.get("func_name") if isinstance(read, dict) else None)
    if isinstance(cases, list) and name is None:
        raise Unreadable("functional tests need the function's name (metadata.func_name)")
    if name is not None and not str(name).isidentifier():
        raise Unreadable("a function's name is one word")
    return None if name is None else str(name)


_CALLED = """
def _as_list(value):
    return [_as_list(one) for one in value] if isinstance(value, (list, tuple)) else value
"""


def _call(name: str, given: Any, expected: Any) -> str:
    """One statement; JSON has no tuples, and APPS puts a result into a list of its own."""
    if isinstance(given, str):  # LiveCodeBench: an argument a line
        try:
            given, expected = [json.loads(line) for line in given.splitlines()], json.loads(str(expected))
        except (ValueError, RecursionError) as error:
            raise Unreadable("a function's arguments and its result are JSON") from error
    if not isinstance(given, list):
        raise Unreadable("a function's arguments are a list")
    accepted = [expected, expected[0]] if isinstance(expected, list) and len(expected) == 1 else [expected]
    return f"""
try:
    _function = {name}
except NameError:
    _function = Solution().{name}
assert _as_list(_function(*{given!r})) in {accepted!r}
"""


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(text: str) -> Any:
    """None for text that is no JSON."""
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[", '"') else None
    except (ValueError, RecursionError):
        return None
