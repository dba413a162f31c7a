r"""Compares numbers, and expressions by their values at points, as polynomials are (Schwartz 1980, Zippel 1979).

docs/rewards.md has the rules. Beyond `MAX_DIGITS` estimated digits there is no value.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import cycle
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

MAX_DIGITS = 200_000
_PLACES = _SIGNIFICANT = 6
_EVALUATED_DIGITS, _EQUAL = 40, Fraction(1, 10**35)
_LARGEST_DENOMINATOR = 10**100
_NOTHING = Fraction(1, 10**30)
_SYMBOL_DIGITS = 0.85
_MAX_SYMBOLS = 8
_HARD = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
_CENT = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
_POINTS = tuple(
    tuple(map(sympy.Rational, point.split()))
    for point in (
        *("7/11 5/13 3/17 11/19", "17/7 31/11 43/13 67/17", "-13/11 -29/17 -5/7 -37/19", "13/5 -3/7 19/11 -31/13"),
        *("2 3 5 7", "5 4 3 2", "7 2 6 3"),
    )
)
"""Values by order of the variables' names; more than four begin again at the front."""

Complex = tuple[Fraction, Fraction]
"""Real and imaginary part."""


class TooLargeError(ValueError):
    """A number would have too many digits."""


def is_number(value: Any) -> bool:
    """True without variables, sums, integrals and the like."""
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.has(*_HARD, AppliedUndef)


def same_number(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    """True if equal; percent signs may be missing."""
    if _percentage(gold) is not None and _percentage(answer) is not None:
        return _same(gold, answer)
    without_sign = [one if (share := _percentage(one)) is None else share for one in (gold, answer)]
    return _same(gold, answer) or _same(*without_sign)


def _same(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    if gold.has(sympy.oo, -sympy.oo) or answer.has(sympy.oo, -sympy.oo):
        return bool(gold.doit() == answer.doit())
    exact = _exact(gold), _exact(answer)
    if exact[0] is not None and exact[1] is not None and exact[0] == exact[1]:
        return True
    values = [
        (one, Fraction(0)) if one is not None else _evaluated(expr, {})
        for one, expr in zip(exact, (gold, answer), strict=True)
    ]
    if values[0] is None or values[1] is None:
        return False
    if None in exact and _close(values[0], values[1]):
        return _away_from_zero(values) or sympy.simplify(gold - answer) == 0
    return _is_rounded(gold, exact[0], values[1]) or _is_rounded(answer, exact[1], values[0])


def _percentage(value: sympy.Expr) -> sympy.Expr | None:
    """60 for 60 %, which the parser makes 60 times an unevaluated 1/100."""
    return value.args[0] if isinstance(value, sympy.Mul) and len(value.args) == 2 and value.args[1] == _CENT else None


def _is_rounded(decimal: sympy.Expr, value: Fraction | None, exact: Complex) -> bool:
    """True if a decimal is `exact`, rounded or cut at its last digit."""
    if value is None or exact[1] or not decimal.has(sympy.Float) or value.denominator > _LARGEST_DENOMINATOR:
        return False
    places = _decimal_places(value)
    if places is None or places < _PLACES or len(str(abs(value) * 10**places)) < _SIGNIFICANT:
        return False
    unit, error = Fraction(1, 10**places), exact[0] - value
    return abs(error) <= unit / 2 or (0 < error * (1 if value > 0 else -1) < unit)


def _decimal_places(value: Fraction) -> int | None:
    rest, places = value.denominator, {2: 0, 5: 0}
    for prime in places:
        while rest % prime == 0:
            rest //= prime
            places[prime] += 1
    return max(places.values()) if rest == 1 else None


def _exact(value: sympy.Expr) -> Fraction | None:
    """Rational value, or None. TooLargeError for too many digits."""
    digits(value)
    try:
        return _rational(value)
    except (ZeroDivisionError, ValueError):
        return None


def _rational(value: sympy.Expr) -> Fraction | None:
    if isinstance(value, sympy.Float):
        return Fraction(str(value))
    if isinstance(value, sympy.Rational):
        return Fraction(int(value.p), int(value.q))
    parts = [_rational(part) for part in value.args]
    if not parts or any(part is None for part in parts):
        return None
    return _worked_out(value, [part for part in parts if part is not None])


def _worked_out(value: sympy.Expr, parts: list[Fraction]) -> Fraction | None:
    if isinstance(value, sympy.UnevaluatedExpr):
        return parts[0]
    if isinstance(value, sympy.Add):
        return sum(parts, Fraction(0))
    if isinstance(value, sympy.Mul):
        return math.prod(parts, start=Fraction(1))
    if any(part.denominator != 1 for part in parts[isinstance(value, sympy.Pow) :]):
        return None
    if isinstance(value, sympy.Pow):
        return parts[0] ** int(parts[1])
    if isinstance(value, sympy.factorial):
        return Fraction(math.factorial(int(parts[0])))
    return Fraction(math.comb(int(parts[0]), int(parts[1]))) if isinstance(value, sympy.binomial) else None


def digits(value: sympy.Expr) -> float:
    """Upper bound of |log10 |value||; variables have one digit. TooLargeError beyond MAX_DIGITS."""
    bound = _digits(value)
    if not bound <= MAX_DIGITS:
        raise TooLargeError
    return bound


def _digits(value: Any) -> float:
    if value in (sympy.oo, -sympy.oo):
        return 1.0
    if isinstance(value, sympy.Rational):
        return max(int(value.p).bit_length(), int(value.q).bit_length()) * math.log10(2)
    if isinstance(value, sympy.Number):
        return abs(math.log10(abs(float(value)) or 1)) + 1
    parts = [digits(part) for part in value.args] or [_SYMBOL_DIGITS]
    if isinstance(value, sympy.Pow):
        return max(parts[0], 0.5) * _magnitude(value.exp, parts[1])
    if isinstance(value, sympy.exp | sympy.sinh | sympy.cosh):
        return _magnitude(value.args[0], parts[0])
    if isinstance(value, sympy.factorial | sympy.gamma | sympy.binomial):
        largest = max(_magnitude(part, size) for part, size in zip(value.args, parts, strict=True))
        return largest * math.log10(largest + 1)
    return sum(parts) if isinstance(value, sympy.Mul) else max(parts) + math.log10(len(parts))


def _magnitude(value: sympy.Expr, bound: float) -> float:
    """Upper bound of |value|."""
    if isinstance(value, sympy.Number):
        return abs(float(value)) if bound < 300 else math.inf
    return 10**bound if bound < 300 else math.inf


def _close(one: Complex, other: Complex) -> bool:
    error = max(abs(a - b) for a, b in zip(one, other, strict=True))
    return error <= _EQUAL * max(map(abs, (*one, *other)))


def _away_from_zero(values: list[Complex | None]) -> bool:
    return all(value is not None and max(map(abs, value)) > _NOTHING for value in values)


def _evaluated(value: sympy.Expr, at: Mapping[Any, Any]) -> Complex | None:
    """Value at a point with 40 digits, or None."""
    try:
        number = value.evalf(_EVALUATED_DIGITS, subs=dict(at) or None)
        parts = number.as_real_imag()
        if not all(isinstance(part, sympy.Number) for part in parts):  # a function that evalf does not know: Mod(17, 5)
            parts = value.subs(dict(at)).doit().evalf(_EVALUATED_DIGITS).as_real_imag()
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError):
        return None
    finite = not any(part.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) for part in parts)
    if not finite or not all(isinstance(part, sympy.Number) for part in parts):
        return None
    return Fraction(str(parts[0])), Fraction(str(parts[1]))


def values(gold: sympy.Expr, answer: sympy.Expr) -> list[tuple[Complex, Complex]] | None:
    """Values at points where both have one, real for real expressions; None if they cannot have any."""
    if gold.has(*_HARD) or answer.has(*_HARD):
        return None
    digits(gold), digits(answer)
    names = sorted(
        gold.free_symbols | answer.free_symbols | gold.atoms(AppliedUndef) | answer.atoms(AppliedUndef), key=str
    )
    if len(names) > _MAX_SYMBOLS:
        return None
    is_complex = gold.has(sympy.I) or answer.has(sympy.I)
    pairs = [(_evaluated(gold, at), _evaluated(answer, at)) for at in (dict(zip(names, cycle(p))) for p in _POINTS)]
    return [(g, a) for g, a in pairs if g and a and (is_complex or not (g[1] or a[1]))]


def same_expression(gold: sympy.Expr, answer: sympy.Expr) -> bool | None:
    """True if equal at all points; None with too few."""
    pairs = values(gold, answer)
    if pairs is None or len(pairs) < 2:
        return None
    return all(_close(g, a) or (not _away_from_zero([g]) and not _away_from_zero([a])) for g, a in pairs)


def factor(gold: sympy.Expr, answer: sympy.Expr) -> int | None:
    """Sign of gold / answer if that is one number everywhere, else 0; None with too few points."""
    pairs = values(gold, answer)
    usable = [(g[0], a[0]) for g, a in pairs or () if g[0] and a[0]]
    if pairs is None or len(usable) < 2:
        return None
    ratios = [(g / a, Fraction(0)) for g, a in usable]
    if len(usable) < len(pairs) - 2 or not all(_close(ratio, ratios[0]) for ratio in ratios):
        return 0
    return 1 if ratios[0][0] > 0 else -1
