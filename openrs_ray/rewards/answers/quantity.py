r"""Reads numbers with their units and compares them with a tolerance: "3.0 \times 10^8 \, \mathrm{m/s}" and "300,000 km/s".

A number is worked out (fractions, powers, roots, pi), never an expression with variables. Units are converted; docs/answers.md
has the rules.
"""

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from openrs_ray.rewards.answers.arithmetic import leading_number
from openrs_ray.rewards.answers.dimensions import Unit, read_units

_LONGEST, _DEEPEST = 300, 5
_CONVERTED = Decimal("1e-9")
"""Relative error of a conversion's factor."""

_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt)|mbox|operatorname|rm|bf)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ARGUMENT = re.compile(r"(sqrt\s*|\^\s*)\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*([0-9])\s*([0-9])")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_MIXED = re.compile(r"(?<![0-9./)^])([0-9]+)(?:\s+([0-9]+)\s*/\s*([0-9]+)|\s*\[\(([0-9]+)\)/\(([0-9]+)\)\])(?![0-9.])")
_SPELLED = (
    (re.compile(r"\^\s*\{\s*([-+−]?[0-9]+(?:/[0-9]+)?)\s*\}"), r"^(\1)"),
    (
        re.compile(
            r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])|\\[,;:!> ]|\\q?quad(?![a-z])|~|[\xa0\u2009\u202f\u2002\u2003]"
        ),
        " ",
    ),
    (re.compile(r"\^\s*\{?\s*\\?(?:circ|degree)(?![A-Za-z])\s*\}?|\\(?:degree|textdegree)(?![A-Za-z])|°"), " degree "),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅∙]"), "*"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=[0-9.])\s*[xX]\s*(?=10(?![0-9]))"), "*"),
    (re.compile(r"\\mu(?![A-Za-z])\s*|μ"), "µ"),
    (re.compile(r"\\Omega(?![A-Za-z])|[ΩΩ]"), "ohm"),
    (re.compile(r"\\(?:AA|r\{A\})(?![A-Za-z])"), " angstrom "),
    (re.compile(r"\\pi(?![A-Za-z])|π"), " pi "),
    (re.compile(r"\\sqrt(?![A-Za-z\[])|√"), " sqrt "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"[−–—]"), "-"),
    (re.compile(r"(?<![A-Za-z])(?:percent|per\s+cent|pct)(?![A-Za-z])"), "%"),
)
_BRACES = str.maketrans("{}[]", "()()")
_NAME = re.compile(r".*(?:=|\\approx(?![a-z])|≈|\\simeq(?![a-z])|\\sim(?![a-z])|≃)", re.DOTALL)
_ABOUT = re.compile(r"\s*(?:about|approximately|approx\.?|around|roughly|exactly)\s+", re.IGNORECASE)
_CURRENCY = re.compile(r"\s*([-+]?)\s*\\?([$€£¥])\s*(?=[-+.0-9])")
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen"}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})(?![A-Za-z])", re.IGNORECASE)
_REMARK = re.compile(r"(?:^|\s)\([^()0-9]*\)\s*\.?$|,\s[^0-9]*$")


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Decimal
    units: tuple[Unit, ...] = ()
    """Readings of its unit, () without one."""

    @property
    def is_percentage(self) -> bool:
        return any(not unit.dimensions and not unit.things and unit.factor == _PERCENT for unit in self.units)


_PERCENT = 0.01


@dataclass(frozen=True, slots=True)
class Tolerance:
    relative: float = 0.0
    """Share of the gold."""
    absolute: float = 0.0
    """In the gold's unit."""


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """Quantity of a text that is all answer; None for anything else."""
    if len(text) > _LONGEST:
        return None
    plain = _ABOUT.sub("", _NAME.sub("", _plain(text), count=1), count=1)
    currency = _CURRENCY.match(plain)
    if currency:
        plain = currency[1] + plain[currency.end() :]
    plain = plain.replace("$", " ").strip(" ,;").rstrip(" .,;")
    found = leading_number(plain)
    if found is None:
        return None
    value, rest = found
    if scale := _SCALE.match(rest):
        value, rest = value.scaleb(_SCALES[scale[1].lower()]), rest[scale.end() :]
    if not rest.strip(" .,;"):
        return Quantity(value, read_units(_CURRENCIES[currency[2]]) if currency else ())
    units = read_units(rest.strip(" .,;")) or read_units(_REMARK.sub("", rest).strip(" .,;"))
    if not units and _REMARK.sub("", rest).strip(" .,;"):
        return None
    return Quantity(value, units)


def read_gold_quantity(gold: str, unit: str | None = None) -> Quantity | None:
    r"""Quantity of a gold, with the unit that stands elsewhere; that may have a power of ten: "$10^{-3} \mathrm{~mol}$"."""
    found = read_quantity(gold)
    if found is None or found.units or not unit or not unit.strip(" $"):
        return found
    one = read_quantity(unit) or read_quantity(f"1 {unit}")
    return one and Quantity(found.value * one.value, one.units)


def same_quantity(gold: Quantity, answer: Quantity, tolerance: Tolerance, unit_required: bool = False) -> bool:
    """True if the answer, in the gold's unit, is within either tolerance.

    A unit that only one of them has is not compared, unless it is the gold's and required; a percentage is also met without its
    sign, or worked out.
    """
    if gold.units and not answer.units and unit_required:
        return False
    return any(_is_close(gold.value, value, tolerance, exact) for value, exact in _in_unit_of(gold, answer))


def _in_unit_of(gold: Quantity, answer: Quantity) -> list[tuple[Decimal, bool]]:
    """Values that an answer may mean in the gold's unit, each with True if nothing was converted."""
    if not gold.units or not answer.units:
        values = [(answer.value, True)]
        if gold.is_percentage:
            values.append((answer.value * 100, True))
        if answer.is_percentage:
            values.append((answer.value / 100, True))
        return values
    pairs = [(g, a) for g in gold.units for a in answer.units if g.compared == a.compared]
    return [(_converted(answer.value, a, g), a == g) for g, a in pairs]


def _converted(value: Decimal, of: Unit, to: Unit) -> Decimal:
    if of == to:
        return value
    kelvin = value * Decimal(of.factor) + Decimal(repr(of.offset))
    return (kelvin - Decimal(repr(to.offset))) / Decimal(to.factor)


def _is_close(gold: Decimal, value: Decimal, tolerance: Tolerance, exact: bool) -> bool:
    # A little more, since 0.1 is not 1/10 in floating point.
    relative = Decimal(tolerance.relative) * (1 + _CONVERTED) + (0 if exact else _CONVERTED)
    return abs(value - gold) <= max(relative * abs(gold), Decimal(tolerance.absolute) * (1 + _CONVERTED))


def _plain(text: str) -> str:
    """LaTeX as plain text: brackets for braces, * for products, ^ for powers."""
    text = _RAISED.sub(lambda found: f"^({unicodedata.normalize('NFKC', found[0]).replace('−', '-')})", text)
    for pattern, replacement in _SPELLED:
        text = pattern.sub(replacement, text)
    text = _SHORT_FRACTION.sub(r"[(\1)/(\2)]", text)
    for _ in range(_DEEPEST):  # from the inside
        text = _FRACTION.sub(r"[(\1)/(\2)]", _ARGUMENT.sub(r"\1(\2)", _WRAPPER.sub(r" \1 ", text)))
    text = _MIXED.sub(lambda found: f"({found[1]}+{found[2] or found[4]}/{found[3] or found[5]})", text)
    return text.translate(_BRACES)
