"""Reads foreign content: every error of a library about it becomes one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openrs_ray.common.formatting import shortened
from openrs_ray.errors import RunError, UserError

_MOST_CHARACTERS = 300
_FOR_PEOPLE = {
    *("OSError", "EOFError", "ValueError"),
    *("TemplateError", "YAMLError", "ArrowException", "HTTPError", "RayActorError"),
    *("Error", "error"),  # csv's and zlib's
}


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn every error of a library into a UserError `what: why`."""
    try:
        yield
    except (UserError, RunError):
        raise
    except BaseException as error:
        # A panic of a library in Rust is no Exception; all others that are none (Ctrl-C, an exit) are not about the content.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"{what}: {why(error)}") from error
        raise


def why(error: BaseException) -> str:
    """The reason of an error on one line, with its kind where the text says little."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = str(error).strip().partition("\n")[0].rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif not text or _FOR_PEOPLE.isdisjoint(kind.__name__ for kind in type(error).__mro__):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return shortened(text, _MOST_CHARACTERS)


def why_with_kind(error: BaseException) -> str:
    """Example: "ValueError: no such thing" """
    kind, reason = type(error).__name__, why(error)
    return reason if reason.startswith(kind) else f"{kind}: {reason}"


def parse_json(text: str | bytes) -> Any:
    """ValueError for every fault: encoding, too many digits, depth."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
