"""Calls into other libraries from the driver: each runs in a process of its own that a deadline, or its memory, can end."""

from __future__ import annotations

import pickle
from importlib import import_module
from types import TracebackType
from typing import Any

from openrs_ray.errors import RunError, UserError
from openrs_ray.rewards.process import CheckProcess, OutOfMemory, OwnRecords, Raised

_DEADLINE_S = 300.0
_MEMORY_GIB = 8.0
_OF_ROWS = {
    "builtins": ("bytearray", "complex", "frozenset", "range", "set"),
    "collections": ("Counter", "OrderedDict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "numpy": ("dtype",),
    "numpy._core.multiarray": ("scalar",),
}
"""Values without code of their own that rows may hold."""


class _Values(OwnRecords):
    """Makes these too, and never a library's or a user's own."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _OF_ROWS.get(module, ()):
            return pickle.Unpickler.find_class(self, module, name)
        return super().find_class(module, name)


class Library:
    """Functions of a module of this package that imports another library. The driver never imports it.

    Example:
        with Library("reasoning_gym", "data.path reasoning-gym:chain_sum") as library:
            size = library.call("size", "chain_sum", {"seed": 1}, None)
    """

    def __init__(self, module: str, what: str, deadline_s: float = _DEADLINE_S) -> None:
        """`what` begins the sentence about a failure."""
        self._module, self._what, self._deadline_s = module, what, deadline_s
        self._process = CheckProcess(pickle.dumps((called, (), None)), _MEMORY_GIB, reader=_Values)

    def call(self, function: str, *arguments: Any) -> Any:
        """UserError for what does not fit, raises, dies or takes too long."""
        item = pickle.dumps((f"{__package__}.{self._module}", function, arguments))
        try:
            result = self._process.check(item, self._deadline_s)
        except TimeoutError as error:
            raise UserError(f"{self._what} was not read within {self._deadline_s:g} s") from error
        except (Raised, OutOfMemory) as error:
            raise UserError(f"{self._what} cannot be read: {error}") from error
        except (EOFError, OSError) as error:
            code = self._process.end()
            raise UserError(f"{self._what} cannot be read: its process died with exit code {code}") from error
        if isinstance(result, Unfit):
            raise UserError(f"{self._what}: {result}")
        return result

    def __enter__(self) -> Library:
        try:
            self._process.wait_ready()
        except RunError:
            self._process.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end()


class Unfit(Exception):
    """A user's mistake that the library found; the text is the end of a sentence."""


def called(item: tuple[str, str, tuple[Any, ...]]) -> Any:
    """In the process: the function's value, or the mistake."""
    module, function, arguments = item
    try:
        return getattr(import_module(module), function)(*arguments)
    except Unfit as mistake:
        return mistake
