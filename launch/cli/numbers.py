"""Numbers on command lines: argparse types whose errors say what is allowed."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)
_MOST = 10**9


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """A whole number between `least` and `most`. Example: `parser.add_argument("--last", type=whole(1))`"""
    allowed = f"of at least {least:,}" if most == _MOST else f"from {least:,} to {most:,}"
    return _between(int, least, most, f"a whole number {allowed}")


def number(least: float, most: float) -> Callable[[str], float]:
    """A number between `least` and `most`."""
    return _between(float, least, most, f"a number from {least:,g} to {most:,.0f}")


def _between(kind: Callable[[str], Number], least: Number, most: Number, allowed: str) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ArgumentTypeError(f"must be {allowed}, not {text!r}")
        return value

    return read


positive = whole(1)
