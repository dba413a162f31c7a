"""Numbers on command lines: argparse types whose errors say what is allowed."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """A whole number between `least` and `most`. Example: `parser.add_argument("--last", type=whole(1))`"""
    allowed = f"of at least {least}" if most == 10**9 else f"from {least:,} to {most:,}"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ArgumentTypeError(f"must be a whole number {allowed}, not {text!r}")
        return number

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A number between `least` and `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ArgumentTypeError(f"must be a number from {least:,g} to {most:,.0f}, not {text!r}")
        return value

    return read


positive = whole(1)
