r"""Reads units such as "kg*m^2/s^2" or "J/(mol K)" into a factor and dimensions; the names and their sizes are pint's.

Only single names reach pint, never an expression: its own parser would work out 10**10**10.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pint import UnitRegistry

_LONGEST = 100
_DEEPEST = 5
_MOST = 12
"""Names in a unit, and its highest power."""
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d_]+|%)(?P<power>\s*\^\s*\(?\s*[-+]?[0-9]+(?:\s*/\s*[0-9]+)?\s*\)?|-?[0-9]{1,2}(?![0-9.]))?"
    r"|(?P<sign>[*/()])|(?P<one>1(?=\s*/)))"
)
_POWER = re.compile(r"([-+]?[0-9]+)(?:\s*/\s*([0-9]+))?")
_REWRITTEN = (
    (re.compile(r"(?<![A-Za-z])(?:deg(?:ree)?s?|°)\s*(C|F|K)(?:elsius|ahrenheit|elvins?)?(?![A-Za-z])"), r" deg\1 "),
    (
        re.compile(r"(?<![A-Za-z])(?:deg(?:ree)?s?)\s*([cf])(?:elsius|ahrenheit)(?![A-Za-z])"),
        lambda m: f" deg{m[1].upper()} ",
    ),
    (re.compile(r"(?<![A-Za-z])degK(?![A-Za-z])"), "K"),
    (re.compile(r"(?<![A-Za-z])ms(?=\s*\^?\s*\(?\s*-)"), "m s"),  # nobody counts per millisecond in powers
    (re.compile(r"(?<![A-Za-z])per(?![A-Za-z])"), "/"),
    (re.compile(r"(?<![A-Za-z])square\s+([A-Za-z]+)"), r"\1^2"),
    (re.compile(r"(?<![A-Za-z])cubic\s+([A-Za-z]+)"), r"\1^3"),
    (re.compile(r"(?<=[A-Za-z])\s+squared(?![A-Za-z])"), "^2"),
    (re.compile(r"(?<=[A-Za-z])\s+cubed(?![A-Za-z])"), "^3"),
    (re.compile(r"(?<![A-Za-z])([kMGmµ]) ohm(?![A-Za-z])"), r"\1ohm"),
    (re.compile(r"µ\s+(?=[A-Za-z])"), "µ"),
)
_ALIASES = {
    "AU": "astronomical_unit",
    "Angstrom": "angstrom",
    "Cal": "kilocalorie",
    "Calories": "kilocalorie",
    "esu": "statcoulomb",
    "rev": "turn",
    "revs": "turn",
}
_PRODUCTS = {
    "Nm": "N m",
    "kNm": "kN m",
    "mNm": "mN m",
    "Js": "J s",
    "Pas": "Pa s",
    "kgm": "kg m",
    "Wm": "W m",
    "Vm": "V m",
}
_OWN = {"ppb": 1e-9, "cycle": 1.0, "cycles": 1.0}
"""Without dimension."""
_GAUSS = {"G": 1e-4, "gauss": 1e-4, "kG": 1e-1, "mG": 1e-7}
"""In tesla; pint's are of another system of units."""
_NO_UNITS = frozenset({"unit", "units", "hand", "hands", "point", "points", "at", "pH", "dB", "k", "i", "x", "y"})
"""Names that pint takes for units, and that are none here."""
_NO_WORDS = frozenset(
    {
        "and",
        "or",
        "not",
        "to",
        "if",
        "when",
        "than",
        "plus",
        "minus",
        "times",
        "over",
        "between",
        "else",
        "otherwise",
        "more",
        "less",
    }
)
"""They join values: no unit has them."""

Dimensions = tuple[tuple[str, Fraction], ...]
"""Sorted, without zeros: (("[length]", 1), ("[time]", -1))."""


@dataclass(frozen=True, slots=True)
class Unit:
    factor: float
    """In the SI's base units."""
    dimensions: Dimensions
    things: str = ""
    """The counted thing, where it is no unit: "apple"."""
    offset: float = 0.0
    """Of a temperature's zero, in kelvin: value * factor + offset."""

    @property
    def compared(self) -> tuple[Dimensions, str]:
        return self.dimensions, self.things


@lru_cache(maxsize=4096)
def read_units(text: str) -> tuple[Unit, ...]:
    """Readings of a unit; () for a text that is none.

    Two where "J/mol K" may be J/(mol K) or (J/mol) K. Words that are no units are things that are counted, or beside a unit
    nothing: "9.8 m/s^2 downward".
    """
    if len(text) > _LONGEST:
        return ()
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    for name, product in _PRODUCTS.items():
        text = re.sub(rf"(?<![A-Za-z]){name}(?![A-Za-z])", product, text)
    readings = [_Reader(text, below_stays).read() for below_stays in (False, True)]
    return tuple(dict.fromkeys(unit for one in readings if one is not None and (unit := _unit(one)) is not None))


def _unit(powers: Mapping[str, Fraction]) -> Unit | None:
    factor, dimensions, others = 1.0, Counter[str](), list[str]()
    for name, power in powers.items():
        known = _known(name)
        if known is None:
            others.append(name)
            continue
        try:
            factor *= known[0] ** float(power)
        except OverflowError:
            return None
        for dimension, exponent in known[1]:
            dimensions[dimension] += exponent * power  # type: ignore[assignment]
    if any(name.lower() in _NO_WORDS for name in others) or not 0 < factor < 1e300:
        return None
    found = tuple(sorted((name, Fraction(power)) for name, power in dimensions.items() if power))
    if len(powers) == 1 and (offset := _offset(next(iter(powers.items())))) is not None:
        return Unit(factor, found, offset=offset)
    only_things = len(others) == len(powers)
    return Unit(factor, found, _singular(others[-1]) if others and only_things else "")


def _offset(power: tuple[str, Fraction]) -> float | None:
    """Kelvin at zero of a temperature that stands alone; in a product degrees are differences."""
    zeros = {"degC": 273.15, "celsius": 273.15, "degF": 459.67 * 5 / 9, "fahrenheit": 459.67 * 5 / 9}
    return zeros.get(power[0] if power[0].startswith("deg") else power[0].lower()) if power[1] == 1 else None


def _singular(name: str) -> str:
    name = name.casefold()
    return name[:-1] if len(name) > 3 and name.endswith("s") and not name.endswith("ss") else name


@cache
def _registry() -> UnitRegistry:
    import pint  # a quarter of a second, which answers of other kinds need not wait for

    return pint.UnitRegistry(cache_folder=None)


@lru_cache(maxsize=4096)
def _known(name: str) -> tuple[float, Dimensions] | None:
    """Factor and dimensions of one name, "km" or "Joules"; None for other words."""
    if name in _NO_UNITS:
        return None
    if name in _OWN:
        return _OWN[name], ()
    if name in _GAUSS:
        tesla = _known("tesla")
        return (_GAUSS[name], tesla[1]) if tesla else None
    registry = _registry()
    for spelling in (_ALIASES.get(name, name), name.lower(), name.capitalize()):
        for prefix, unit, _ in registry.parse_unit_name(spelling)[:1]:
            factor, base = registry.get_base_units(prefix + unit)
            dimensions = sorted((str(one), Fraction(power)) for one, power in base.dimensionality.items())
            return float(factor), tuple(dimensions)
    return None


class _Reader:
    """Powers of the names in a unit. `below_stays`: after "/" all names up to the next are below it."""

    def __init__(self, text: str, below_stays: bool) -> None:
        self._text = text
        self._below_stays = below_stays
        self._place = 0
        self._powers: dict[str, Fraction] = {}

    def read(self) -> Mapping[str, Fraction] | None:
        whole = self._product(1, 0) and not self._text[self._place :].strip(" .,;*")
        small = len(self._powers) <= _MOST and all(abs(power) <= _MOST for power in self._powers.values())
        return self._powers if whole and self._powers and small else None

    def _product(self, sign: int, depth: int) -> bool:
        """False for a text that is no unit."""
        here, below, anything = sign, False, False
        while (found := _TOKEN.match(self._text, self._place)) is not None:
            if found["sign"] == ")":
                return depth > 0 and anything
            self._place = found.end()
            if found["sign"] == "/":
                here, below = -sign, True
                continue
            if found["sign"] == "*" or found["one"]:
                continue
            if found["sign"] == "(":
                if depth >= _DEEPEST or not self._product(here, depth + 1) or not self._closes():
                    return False
            else:
                self._add(found["name"], here * _power(found["power"]))
            anything = True
            here = -sign if below and self._below_stays else sign
        return anything and depth == 0

    def _closes(self) -> bool:
        found = _TOKEN.match(self._text, self._place)
        if found is None or found["sign"] != ")":
            return False
        self._place = found.end()
        return True

    def _add(self, name: str, power: Fraction) -> None:
        self._powers[name] = self._powers.get(name, Fraction(0)) + power


def _power(text: str | None) -> Fraction:
    found = _POWER.search(text or "")
    return Fraction(int(found[1]), int(found[2] or 1) or 1) if found else Fraction(1)
