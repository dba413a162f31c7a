r"""Works out the number at the start of a plain text, such as "3.0*10^(8)" in "3.0*10^(8) m/s", with 40 digits."""

import re
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow, Underflow

_CONTEXT = Context(
    prec=40, Emax=10_000, Emin=-10_000, traps=[DivisionByZero, InvalidOperation, Overflow, Underflow]
)  # fmt: skip
_PI = Decimal("3.141592653589793238462643383279502884197")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?:[ ][0-9]{3})+(?![0-9.])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?P<exponent>[eE][+-]?[0-9]+(?![A-Za-z0-9.]))?|(?P<name>sqrt|pi)(?![A-Za-z])|(?P<sign>[-+*/^()]))"
)
_DEEPEST = 10


def leading_number(text: str) -> tuple[Decimal, str] | None:
    """Value of the longest number that a text begins with, and the rest; None without, or where it is none (1/0, 10^10^10).

    Digits may be grouped by commas or spaces; +, -, *, /, ^, brackets, sqrt and pi are worked out.
    """
    reader = _Reader(text)
    try:
        value = reader.sum()
    except (DecimalException, _NoNumberError):
        return None
    return value, text[reader.place :]


class _NoNumberError(ValueError):
    """No number stands here."""


class _Reader:
    """Recursive descent; `place` is behind the last token that belongs to the number."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.place = 0
        self._depth = 0

    def sum(self) -> Decimal:
        value = self._product()
        while (sign := self._operator("+-")) is not None:
            other = self._product()
            value = _CONTEXT.add(value, other) if sign == "+" else _CONTEXT.subtract(value, other)
        return value

    def _product(self) -> Decimal:
        value = self._signed()
        while True:
            if (sign := self._operator("*/")) is not None:
                other = self._signed()
                value = _CONTEXT.multiply(value, other) if sign == "*" else _CONTEXT.divide(value, other)
            elif self._peek("name") is not None:  # 2 pi, 3 sqrt(2)
                value = _CONTEXT.multiply(value, self._power())
            else:
                return value

    def _signed(self) -> Decimal:
        sign = self._take("sign", "+-")
        value = self._power()
        return _CONTEXT.minus(value) if sign == "-" else value

    def _power(self) -> Decimal:
        base = self._atom()
        return _CONTEXT.power(base, self._signed()) if self._operator("^") else base

    def _atom(self) -> Decimal:
        if (number := self._take("number")) is not None:
            return _CONTEXT.create_decimal(number.replace(",", "").replace(" ", ""))
        name = self._take("name")
        if name == "pi":
            return _PI
        if name is None and self._take("sign", "(") is not None:
            return self._bracketed()
        if name == "sqrt":
            return _CONTEXT.sqrt(self._atom())
        raise _NoNumberError

    def _bracketed(self) -> Decimal:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NoNumberError
        value = self.sum()
        if self._take("sign", ")") is None:
            raise _NoNumberError
        self._depth -= 1
        return value

    def _operator(self, signs: str) -> str | None:
        """The next sign, taken only if a number follows: in "5 / s" it belongs to the unit."""
        place = self.place
        sign = self._take("sign", signs)
        if sign is not None and self._begins_number():
            return sign
        self.place = place
        return None

    def _begins_number(self) -> bool:
        found = _TOKEN.match(self._text, self.place)
        while found is not None and found["sign"] in ("(", "-", "+"):
            found = _TOKEN.match(self._text, found.end())
        return found is not None and found["sign"] is None

    def _peek(self, kind: str) -> str | None:
        found = _TOKEN.match(self._text, self.place)
        return found[kind] if found is not None else None

    def _take(self, kind: str, among: str = "") -> str | None:
        found = _TOKEN.match(self._text, self.place)
        if found is None or found[kind] is None or (among and found[kind] not in among):
            return None
        self.place = found.end()
        return found[kind] + (found["exponent"] or "")
