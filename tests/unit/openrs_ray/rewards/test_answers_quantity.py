r"""Numbers with units and tolerance: public formats, and generated conversions against pint and float64."""

import math
import random
import time

import pint
import pytest

from openrs_ray.rewards.answers.quantity import Tolerance, read_gold_quantity, read_quantity, same_quantity

EXACT = Tolerance()


def same(
    gold: str, answer: str, tolerance: Tolerance = EXACT, unit: str | None = None, unit_required: bool = False
) -> bool:
    read, found = read_gold_quantity(gold, unit), read_quantity(answer)
    assert read is not None, gold
    return found is not None and same_quantity(read, found, tolerance, unit_required)


EQUAL = {
    "numbers": [
        *(("5", "5.0"), ("1/2", "0.5"), (r"\frac{3}{4}", "0.75"), (r"\frac34", ".75"), ("-5", "−5"), ("5", "+5")),
        *(
            ("1,234,567", "1234567"),
            ("1{,}234", "1 234"),
            (r"12\,345", "12345"),
            ("3 1/2", "3.5"),
            (r"3\frac{1}{2}", "3.5"),
        ),
        *(("5", "about 5."), ("5", "x = 2 + 3 = 5"), ("5", r"v \approx 5"), ("5", r"\text{5}"), (r"\sqrt{16}", "4")),
    ],
    "powers of ten": [
        *(
            ("2e3", "2000"),
            ("2E-3", "0.002"),
            ("2E3", r"2 \times 10^3"),
            ("2e-3", r"2\cdot10^{-3}"),
            ("6.02e23", "6.02 x 10^23"),
        ),
        *(("6.02e23", "6.02×10²³"), ("2e-3", "2 × 10⁻³"), ("2e3", "2*10**3"), ("1e8", "10^8"), ("2e6", "2 million")),
    ],
    "LaTeX": [
        *((r"3.0 \times 10^8 \, \mathrm{m/s}", "300,000 km/s"), (r"9.8\,\mathrm{m\,s^{-2}}", "9.8 m/s²")),
        *(
            (r"0.1 \mathrm{~kg} \mathrm{~m} / \mathrm{s}", "0.1 kg m/s"),
            (r"8.314 \frac{\text{J}}{\text{mol K}}", "8.314 J/(mol K)"),
        ),
        *((r"1.5 \mu\text{m}", "1500 nm"), (r"2 \text{ M}\Omega", "2000 kΩ"), (r"1 \AA", "10^{-10} m")),
        *((r"180^\circ", "180 degrees"), (r"25^{\circ}\mathrm{C}", "298.15 K")),
    ],
    "units": [
        *(
            ("3 m/s", "10.8 km/h"),
            ("3 m/s", "10.8 kilometers per hour"),
            ("5 m^2", "5 square meters"),
            ("5 m3", "5 cubic metres"),
        ),
        *(
            ("1 g/cm^3", "1000 kg/m^3"),
            ("1 g/cm3", "1000 kg m-3"),
            ("1 kWh", "3.6 MJ"),
            ("10 N m", "10 J"),
            ("10 N·m", "10 Nm"),
        ),
        *(("8.314 J/(mol K)", "8.314 J/mol K"), ("8.314 J/(mol K)", "8.314 J mol^{-1} K^{-1}"), ("1 mol/L", "1 M")),
        *(
            ("1 T", "10^4 G"),
            ("1 h", "3600 s"),
            ("1 ft", "12 in"),
            ("1 lb", "0.45359237 kg"),
            ("60 mph", "26.8224 m/s"),
        ),
        *(("1 atm", "101325 Pa"), ("760 torr", "1 atm"), ("1 eV", "1.602176634e-19 J"), ("2 ms^{-1}", "2 m/s")),
        *(("9.8 m/s^2", "9.8 m/s^2 downward"), ("9.8 m/s^2", "9.8 m/s^2 (downward)"), ("180 degrees", r"\pi rad")),
    ],
    "temperatures": [
        ("25 °C", "298.15 K"),
        ("77 °F", "25 degrees Celsius"),
        ("-40 °C", "-40 °F"),
        ("0 K", "-273.15 degC"),
    ],
    "percent": [("50%", "0.5"), (r"50\%", "50"), ("0.5", "50%"), ("50", "50 percent"), ("50%", "50 per cent")],
    "things and money": [
        ("5 apples", "5 apple"),
        ("$5", "5 dollars"),
        (r"\$5", "5"),
        ("2,000 people", "2 thousand people"),
    ],
    "a unit that only one has": [("5 m", "5"), ("5", "5 m"), ("72", "72 clips")],
}
DIFFERENT = {
    "values": [("5", "6"), ("5", "-5"), ("1,000", "1"), ("1/3", "0.333"), ("5", "5 million"), ("0.5", "5%"), ("5", "5.0000001")],
    "units": [("5 m", "5 s"), ("5 m", "5 km"), ("1 kg", "1 K"), ("1 mW", "1 MW"), ("5 N", "5 J"), ("5 apples", "5 oranges")],
    "temperatures": [("25 °C", "25 K"), ("5 °C", "5 °F"), ("5 J/°C", "5 J/°F")],
    "several values": [("3", "3, 4"), ("3", "3 and 4"), ("5", "5 or 6"), ("5", "(5, 6)"), ("5", r"\pm 5"), ("5 m", "5 m or 6 m")],
    "no values": [("5", "x"), ("5", "5x + 2"), ("5", "< 5"), ("5", "1/0"), ("2", "5 - 3 = x"), ("5", ""), ("5", "five apples")],
    "huge": [("5", "10**10**10 m"), ("5", "9^9^9^9"), ("0", "10^-99999"), ("5", "m^99999"), ("5", "5 m^9999999")],
}  # fmt: skip


@pytest.mark.parametrize("kind", EQUAL)
def test_equal(kind: str) -> None:
    wrong = [pair for gold, answer in EQUAL[kind] for pair in ((gold, answer), (answer, gold)) if not same(*pair)]
    assert not wrong


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different(kind: str) -> None:
    assert not [pair for pair in DIFFERENT[kind] if same(*pair)]


def test_tolerances() -> None:
    five_per_cent = Tolerance(relative=0.05)
    assert same("2.0", "2.1", five_per_cent) and same("2.0", "1.9", five_per_cent)
    assert not same("2.0", "2.11", five_per_cent)
    assert same("2.0 km", "2.1e3 m", five_per_cent) and not same("2.0 km", "2.2e3 m", five_per_cent)
    assert same("25 °C", "26 °C", five_per_cent) and not same("25 °C", "27 °C", five_per_cent)
    tenth = Tolerance(absolute=0.1)
    assert same("4.2", "4.3", tenth) and same("4.2 m", "430 cm", tenth) and not same("4.2", "4.31", tenth)
    assert same("0", "0.05", tenth) and not same("0", "0.05", five_per_cent)


def test_units_of_their_own_column() -> None:
    """SciBench: answer_number "1.7", unit "$10^{-3} \\mathrm{~mol}$"; OlympiadBench: "s"."""
    assert same("1.7", "1.7 mmol", unit=r" $10^{-3} \mathrm{~mol}$")
    assert same("1.7", "0.0017", unit=r"$10^{-3} \mathrm{~mol}$") and not same(
        "1.7", "1.7 mol", unit=r"$10^{-3} \mathrm{~mol}$"
    )
    assert same("2.2", "220 cm/s", unit=r"$\mathrm{~m} \mathrm{~s}^{-1}$")
    assert same("5", "5", unit="") and same("5", "5 m", unit=" ")
    assert same("5", "5000 ms", unit="s") and not same("5", "5 ms", unit="s")


def test_a_unit_may_be_required() -> None:
    assert not same("5 m", "5", unit_required=True)
    assert same("5 m", "500 cm", unit_required=True) and same("5", "5", unit_required=True)


_PAIRS = (
    *(
        ("km/h", "m/s"),
        ("mile", "km"),
        ("J", "kcal"),
        ("eV", "kJ"),
        ("psi", "kPa"),
        ("mmHg", "atm"),
        ("hp", "kW"),
        ("gal", "L"),
    ),
    *(
        ("acre", "m^2"),
        ("ly", "km"),
        ("lbf", "N"),
        ("mg/L", "g/m^3"),
        ("W h", "MJ"),
        ("degree", "rad"),
        ("rpm", "rad/s"),
    ),
    *(
        ("degC", "K"),
        ("degF", "degC"),
        ("u", "kg"),
        ("mol/L", "mol/m^3"),
        ("kPa m^3", "J"),
        ("ft/s^2", "cm/s^2"),
        ("uT", "mT"),
    ),
)


def test_conversions_agree_with_pint_in_float64() -> None:
    """2,000 pairs: pint's conversion is right, and what is off by twice the tolerance is wrong."""
    draw, registry = random.Random(2), pint.UnitRegistry()
    for number in range(2000):
        of, to = _PAIRS[number % len(_PAIRS)] if number % 2 else _PAIRS[number % len(_PAIRS)][::-1]
        value = float(f"{draw.uniform(1, 10):.4f}") * 10.0 ** draw.randint(-6, 6)
        relative = draw.choice([1e-6, 1e-3, 0.05])
        gold = f"{value!r} {of}"
        there = registry.Quantity(value, registry.Unit(of)).to(registry.Unit(to))
        off = registry.Quantity(value * (1 + 2 * relative), registry.Unit(of)).to(registry.Unit(to))
        assert same(gold, f"{there.magnitude!r} {to}", Tolerance(relative)), (gold, there)
        assert not same(gold, f"{off.magnitude!r} {to}", Tolerance(relative)), (gold, off)


def test_arithmetic_agrees_with_float64() -> None:
    """1,000 expressions of + - * / ^ sqrt and pi, written for Python and for LaTeX."""
    draw = random.Random(3)

    def expression(depth: int) -> tuple[str, float]:
        if depth == 0:
            text = f"{draw.uniform(0.5, 20):.3f}"
            return draw.choice([(text, float(text)), (r"\pi", math.pi)])
        (a, x), (b, y) = expression(depth - 1), expression(depth - 1)
        kind = draw.randrange(6)
        if kind == 0 and abs(y) > 1e-6:
            return rf"\frac{{{a}}}{{{b}}}" if "frac" not in a + b else f"({a})/({b})", x / y
        if kind == 1:
            return rf"\sqrt{{{a}}}" if x > 0 else f"({a})", math.sqrt(x) if x > 0 else x
        if kind == 2:
            return f"({a})^2", x**2
        sign, value = (("+", x + y), ("-", x - y), (r"\cdot", x * y))[kind % 3]
        return f"({a} {sign} {b})", value

    for _ in range(1000):
        text, value = expression(draw.randint(1, 3))
        found = read_quantity(text)
        assert found is not None and math.isclose(float(found.value), value, rel_tol=1e-9, abs_tol=1e-9), (
            text,
            found,
            value,
        )


def test_no_power_is_worked_out_in_full() -> None:
    """pint's own parser takes minutes for the first."""
    start = time.thread_time()
    for text in ("10**10**10 m", "9^9^9^9^9", "m" + "^9" * 100, "2^(10^300)", "(" * 290, "-" * 290, "1e" + "9" * 200):
        read_quantity(text)
    assert time.thread_time() - start < 0.1
