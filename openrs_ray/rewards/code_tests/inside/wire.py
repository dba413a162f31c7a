"""Values as lines of JSON between two confined programs, for data only: nothing of the sender's code reaches the receiver.

Runs inside sandboxes, by itself: it imports nothing of the project.
"""

import json
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any, BinaryIO

LONGEST_LINE = 1 << 24
_MOST_OF_ITERATOR = 100_000
_EXACT = 2**53

Handle = Callable[[Any], list[Any]]


class NotData(TypeError):
    """A value that cannot be sent."""


class Gone(Exception):
    """The other side has ended or sends nonsense."""


def encoded(value: Any, handle: Handle) -> Any:
    """JSON of a value. A subclass of a plain type is sent as that type; `handle` sends, or refuses, everything else."""
    match value:
        case None | bool():
            return value
        case int():
            number = int.__index__(value)
            return number if -_EXACT < number < _EXACT else ["i", hex(number)]
        case float():
            return ["x", float.hex(value)]
        case complex():
            return ["c", value.real, value.imag]
        case str():
            return str.__str__(value)
        case bytes() | bytearray():
            return ["b", bytes(value).hex()]
        case Decimal():
            return ["D", str(value)]
        case Fraction():
            return ["F", hex(value.numerator), hex(value.denominator)]
        case range():
            return ["R", value.start, value.stop, value.step]
        case dict():
            return ["d", *([encoded(key, handle), encoded(one, handle)] for key, one in dict.items(value))]
    for tag, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            parts = islice(value, _MOST_OF_ITERATOR) if tag == "n" else value  # an iterator may never end
            return [tag, *(encoded(one, handle) for one in parts)]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encoded(value.tolist(), handle)
    return handle(value)


def decoded(content: Any, remote: Callable[[int, str], Any]) -> Any:
    """Value of JSON; `remote` stands for what stayed on the other side."""
    if not isinstance(content, list):
        return content
    tag, *parts = content
    if tag in _SEQUENCES:
        return _MAKERS[tag](decoded(one, remote) for one in parts)
    if tag == "d":
        return {decoded(key, remote): decoded(one, remote) for key, one in parts}
    if tag == "r":
        return remote(int(parts[0]), str(parts[1]))
    return _SCALARS[tag](*parts)


def send(pipe: BinaryIO, message: Any) -> None:
    try:
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()
    except OSError as error:
        raise Gone from error


def receive(pipe: BinaryIO) -> Any:
    line = pipe.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise Gone
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Gone from error


_SEQUENCES: dict[str, Any] = {
    "l": list,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": deque,
    "k": KeysView,
    "v": (ValuesView, ItemsView),
    "n": Iterator,
}
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "l": list,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": deque,
    "k": lambda parts: dict.fromkeys(parts).keys(),
    "v": list,
    "n": lambda parts: iter(list(parts)),
}
_SCALARS: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "x": float.fromhex,
    "c": complex,
    "b": bytes.fromhex,
    "D": Decimal,
    "F": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
    "R": range,
}
