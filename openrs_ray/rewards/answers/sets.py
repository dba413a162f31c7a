r"""Reads lists of strings and numbers: "1, 2 and 3", "\{1, 2, 3\}", "["a", "b"]", and compares them as sets.

Numbers are equal by value, everything else as strings (openrs_ray.rewards.answers.exact).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from openrs_ray.common.foreign import parse_json
from openrs_ray.rewards.answers.exact import Ignored, normalised
from openrs_ray.rewards.answers.place import unwrapped

_LONGEST = 5_000
_BRACKETS = (("\\{", "\\}"), ("{", "}"), ("[", "]"), ("(", ")"), ("\\lbrace", "\\rbrace"))
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*|\\[,;:! ](?=\s*\S)|\{(?=,\})|(?<=\{,)\}")
_EMPTY = frozenset({"", "\\emptyset", "\\varnothing", "∅"})
_JOINED = re.compile(r"\s*(?:,\s*)?(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![^\s,])(?:and|or|&)(?=\s))\s*")
_NUMBER = re.compile(r"[-+−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,50})(?:\.[0-9]{0,50})?|[-+−]?\.[0-9]{1,50}")

Element = str | Decimal


def read_list(text: str, ignore: Collection[Ignored] = ()) -> tuple[Element, ...]:
    """Elements in their order. A list in JSON is read as that; else semicolons separate, or, without them, commas and "and"."""
    text = unwrapped(text[:_LONGEST])
    parts = _from_json(text)
    if parts is None:
        inner = _inner(text)
        parts = [] if inner in _EMPTY else _split(inner)
    return elements(parts, ignore)


def elements(parts: Sequence[str], ignore: Collection[Ignored] = ()) -> tuple[Element, ...]:
    return tuple(_element(part, ignore) for part in parts)


def same_list(gold: Sequence[Element], answer: Sequence[Element], ordered: bool = False, repeats: bool = False) -> bool:
    """`ordered`: in the same order; `repeats`: each as often. Otherwise equality as sets."""
    if not repeats:
        gold, answer = list(dict.fromkeys(gold)), list(dict.fromkeys(answer))
    return list(gold) == list(answer) if ordered else Counter(gold) == Counter(answer)


def _from_json(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    flat = isinstance(found, list) and all(isinstance(one, str | int | float) for one in found)
    return [one if isinstance(one, str) else repr(one) for one in found] if flat else None


def _inner(text: str) -> str:
    """Text without the brackets around all of it."""
    text = _SIZES.sub("", text).strip(" .")
    for opening, closing in _BRACKETS:
        inside = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.endswith(closing) and opening not in inside and len(text) > len(opening):
            return inside.strip()
    return text


def _split(text: str) -> list[str]:
    if ";" in text:
        return _filled(text.split(";"))
    joined = _JOINED.sub(", ", text)
    # With a space behind its commas, a list may have numbers such as 1,000.
    parts = re.split(r",\s+", joined) if re.search(r",\s", joined) else [joined]
    return _filled(one for part in parts for one in _commas(part, len(parts)))


def _commas(part: str, parts: int) -> list[str]:
    return [part] if parts > 1 and _NUMBER.fullmatch(part.strip()) else part.split(",")


def _filled(parts: Iterable[str]) -> list[str]:
    return [one for part in parts if (one := part.strip())]


def _element(text: str, ignore: Collection[Ignored]) -> Element:
    plain = unwrapped(text).strip("\"'")
    if _NUMBER.fullmatch(plain):
        return Decimal(plain.replace(",", "").replace("−", "-")).normalize()
    return normalised(plain, ignore)
