"""Main of the sandbox that holds the tests: runs them, and asks the sandbox of the program for each value that it computes.

The program's functions and objects are stand-ins here; plain data is passed by value. No code of the program runs here, and
it cannot reach what does: the values that come are data, whose comparison it has no part in.
"""

import ast
import builtins
import collections
import importlib
import io
import json
import os
import sys
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

from wire import Gone, NotData, decoded, encoded, receive, send  # type: ignore[import-not-found]  # it lies beside this file in the sandbox

LENT: dict[str, Any] = {
    **{name: getattr(builtins, name) for name in dir(builtins)},
    **{name: getattr(collections, name) for name in collections.__all__},
    "Decimal": Decimal,
    "Fraction": Fraction,
}
"""Names that tests mean as Python's own, even where the program has something of that name."""


class Unusable(Exception):
    """The tests themselves are at fault."""


class RemoteError(Exception):
    """The program raised an exception of its own."""


class Program:
    """The program's side, by way of the two pipes."""

    def __init__(self) -> None:
        self._answers, self._requests = os.fdopen(3, "rb"), os.fdopen(4, "wb")
        self.asked = False

    def load(self) -> None:
        self._result()

    def names(self, wanted: list[str]) -> dict[str, Any]:
        found = self.ask("names_of", wanted)[0]
        return {name: self.value(one) for name, one in found.items() if name in wanted}

    def ask(self, kind: str, *arguments: Any) -> list[Any]:
        send(self._requests, [kind, *arguments])
        return self._result()

    def sent(self, value: Any) -> Any:
        return encoded(value, _handle)

    def value(self, content: Any) -> Any:
        try:
            return decoded(content, lambda handle, kind: Remote(self, handle, kind))
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, ArithmeticError, RecursionError) as error:
            raise Gone from error

    def _result(self) -> list[Any]:
        match receive(self._answers):
            case ["ok", *values]:
                return values
            case ["raised", str(name), str(message)]:
                raise _exception(name, message)
            case _:
                raise Gone


class Remote:
    """Stands for something in the program's sandbox. It can be used, but not compared: the program would decide."""

    __slots__ = ("_handle", "_kind", "_program")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, program: Program, handle: int, kind: str) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        program = self._program
        given = [program.sent(one) for one in positional]
        program.asked = True
        value, changed = program.ask(
            "call", self._handle, given, {name: program.sent(one) for name, one in named.items()}
        )
        for place, content in changed.items():
            _update(positional[int(place)], program.value(content))
        return program.value(value)

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self._handle, name, self._program.sent(value))

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", self._program.sent(key))

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __iter__(self) -> Any:
        return iter(self._ask("all"))

    def __str__(self) -> str:
        return str(self._ask("text"))

    def __bool__(self) -> bool:
        return self._ask("truth") is True

    def __contains__(self, value: Any) -> bool:
        return value in list(iter(self))

    def __eq__(self, other: object) -> bool:
        raise NotData(f"a {self._kind} of the program is no data that can be compared")

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__

    def _ask(self, kind: str, *arguments: Any) -> Any:
        return self._program.value(self._program.ask(kind, self._handle, *arguments)[0])


def _handle(value: Any) -> list[Any]:
    if isinstance(value, Remote):
        return ["r", value._handle, ""]
    raise Unusable(f"they pass a {type(value).__name__} to the program, which is no plain data")


def _update(mine: Any, theirs: Any) -> None:
    """Change that the program made to an argument."""
    match mine:
        case list():
            mine[:] = theirs
        case dict() | set():
            mine.clear()
            mine.update(theirs)


def _exception(name: str, message: str) -> Exception:
    """Python's own by its name, for tests that expect one; an assertion of the program is none of the tests."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not AssertionError:
        with suppress(TypeError):  # those that need more than a message
            return kind(message)
    return RemoteError(f"{name}: {message}")


def wanted_names(trees: list[ast.Module]) -> tuple[list[str], list[str]]:
    """Names that the tests use without defining them: the program's, and modules of the standard library."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    own = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    own |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    roots = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    free = used - own
    modules = sorted((free & roots & sys.stdlib_module_names) - set(called))
    program = sorted(free - LENT.keys() - set(modules))
    if not program:  # a function named like one of Python's: `assert sum(10, 15) == 6`
        program = [name for name in called if name in LENT and name not in own][:1]
    return program, modules


def main() -> None:
    with open("tests.json", encoding="utf-8") as file:
        given = json.load(file)
    report, sys.stdout = sys.stdout, io.StringIO()  # what tests print is no report

    def tell(**said: Any) -> None:
        print(json.dumps(said), file=report, flush=True)

    try:
        run(given["setup"], given["tests"], tell)
    except Unusable as error:
        tell(unusable=str(error))
    report.flush()
    os._exit(0)


def run(setup: str, tests: list[str], tell: Any) -> None:
    """Tells each test's result as it comes."""
    try:
        trees = [ast.parse(text) for text in (setup, *tests)]
        codes = [compile(tree, "tests", "exec") for tree in trees]
        names, modules = wanted_names(trees)
        namespace: dict[str, Any] = {name: LENT[name] for name in LENT if not hasattr(builtins, name)}
        namespace |= {name: importlib.import_module(name) for name in modules} | {"__name__": "tests"}
    except (SyntaxError, ValueError, RecursionError, ImportError) as error:
        raise Unusable(f"they cannot be read: {type(error).__name__}: {error}") from error
    program = Program()
    try:
        program.load()
        namespace |= program.names(names)
        _set_up(codes[0], namespace, program)
    except Unusable:
        raise
    except BaseException as error:
        tell(failed=_said(error))
        return
    for code in codes[1:]:
        try:
            exec(code, namespace)
            tell(passed=True)
        except Unusable:
            raise
        except BaseException as error:
            tell(passed=False, why=_said(error))


def _set_up(code: Any, namespace: dict[str, Any], program: Program) -> None:
    try:
        exec(code, namespace)
    except Unusable:
        raise
    except BaseException as error:
        if program.asked or isinstance(error, NameError | Gone):
            raise
        raise Unusable(f"their setup fails: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """Without what a failed assertion says, which may be the expected value."""
    if isinstance(error, AssertionError):
        return "an assertion does not hold"
    if isinstance(error, Gone):
        return "the program has ended"
    return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    main()
