"""Loads a user's own object from its source text. Only ever called in a process that can be killed."""

import linecache
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from openrs_ray.common.telling import part
from openrs_ray.errors import UserError
from openrs_ray.user_code.reference import UserCode

_LONGEST_REASON = 300
_NAMED = 8


def load(code: UserCode) -> Any:
    """The object of a reference. UserError when its file cannot be imported or lacks it.

    The file is imported once for each process, as a module in `sys.modules`; its folder comes first in `sys.path`, and
    tracebacks have its lines.
    """
    module = sys.modules.get(code.module) or _imported(code)
    try:
        return getattr(module, code.name)
    except AttributeError:
        own = [name for name, one in vars(module).items() if getattr(one, "__module__", None) == code.module]
        has = f"it has {', '.join(own[:_NAMED])}" if own else "it has no functions or classes"
        raise UserError(f"there is no {code.name} in {code.path} ({code.reference}): {has}") from None


def _imported(code: UserCode) -> ModuleType:
    module, source = ModuleType(code.module), code.source
    module.__file__ = code.path
    linecache.cache[code.path] = (len(source), None, source.splitlines(keepends=True), code.path)
    sys.path[:0] = [folder for folder in code.folders if folder not in sys.path]
    sys.modules[code.module] = module
    try:
        with part(code.reference):
            exec(compile(source, code.path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[code.module]
        if isinstance(error, SyntaxError) and error.filename == code.path:
            raise UserError(
                f"{code.path} ({code.reference}) is not Python: {error.msg} in line {error.lineno}"
            ) from error
        raise UserError(f"{code.path} ({code.reference}) cannot be imported: {reason(error, code)}") from error
    except BaseException:
        del sys.modules[code.module]
        raise
    return module


def reason(error: BaseException, code: UserCode) -> str:
    """An exception in one line. Example: "KeyError: 'unit' (my_rewards.py, line 12)"."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its own __str__ fails
        text = ""
    text = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.path]
    where = f" ({Path(code.path).name}, line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
