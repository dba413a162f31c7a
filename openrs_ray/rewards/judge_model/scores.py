"""Reads a judge model's reply, strictly: anything but what was asked for is no judgement."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import regex

from openrs_ray.common.foreign import parse_json
from openrs_ray.common.formatting import shortened

SCORE_PATTERN = r"(?im)^\W*score\W*?(-?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*\d+)?\W*$"
"""A line "Score: 7", perhaps in bold or with "/10", but not "Score (0-10): 7"."""
_SEARCH_S = 2.0
"""A pattern may take exponential time, and the process serves other groups too."""
_SHOWN = 120
_LIST = regex.compile(r"\[[^\[\]]*\]")


class Unreadable(ValueError):
    """The reply has no score; says why."""


def score_by_pattern(reply: str, pattern: str, low: float, high: float) -> float:
    """The last match's group as a share of [low, high]. Raises Unreadable."""
    try:
        found = list(regex.finditer(pattern, _answer(reply), timeout=_SEARCH_S))
    except TimeoutError:
        raise Unreadable(f"rewards.judge.score_pattern took over {_SEARCH_S:g} s for {_quoted(reply)}") from None
    if not found:
        raise Unreadable(f"no score in {_quoted(reply)}")
    return as_share(found[-1][1], low, high, reply)


def score_by_key(reply: str, key: str, low: float, high: float) -> float:
    """The value of the last JSON object that has the key, as a share of [low, high]. Raises Unreadable."""
    values = [content[key] for content in _objects(_answer(reply)) if key in content]
    if not values:
        raise Unreadable(f"no JSON object with {key!r} in {_quoted(reply)}")
    return as_share(values[-1], low, high, reply)


def as_share(value: Any, low: float, high: float, reply: str) -> float:
    """0 for low, 1 for high. Raises Unreadable beyond them."""
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not low <= number <= high:
        raise Unreadable(
            f"the score {shortened(repr(value), _SHOWN)} is not in {low:g} to {high:g}, in {_quoted(reply)}"
        )
    return (number - low) / (high - low)


def ranking(reply: str, count: int) -> list[float]:
    """1 for the best to 0 for the worst, by the numbers 1 to `count` in the reply's last list. Raises Unreadable."""
    order = _last_list(reply)
    if any(type(number) is not int for number in order) or sorted(order) != list(range(1, count + 1)):
        raise Unreadable(f"no ranking of 1 to {count} in {_quoted(reply)}")
    return [1 - order.index(number) / (count - 1) for number in range(1, count + 1)]


def scores(reply: str, count: int, low: float, high: float) -> list[float]:
    """The reply's last list as shares of [low, high]. Raises Unreadable."""
    values = _last_list(reply)
    if len(values) != count:
        raise Unreadable(f"{len(values)} scores for {count} responses in {_quoted(reply)}")
    return [as_share(value, low, high, reply) for value in values]


def _last_list(reply: str) -> list[Any]:
    found = _LIST.findall(_answer(reply))
    try:
        content = parse_json(found[-1]) if found else None
    except ValueError:
        content = None
    if not isinstance(content, list):
        raise Unreadable(f"no JSON list in {_quoted(reply)}")
    return content


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in the text, outermost ones."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            content, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            content, end = None, place + 1
        if isinstance(content, dict):
            yield content
        place = text.find("{", end)


def _answer(reply: str) -> str:
    """The reply without the judge's reasoning."""
    return reply.rpartition("</think>")[2]


def _quoted(reply: str) -> str:
    """The reply's end, where the score should be."""
    text = " ".join(reply.split())
    return repr(text if len(text) <= _SHOWN else f"... {text[-_SHOWN:]}")
