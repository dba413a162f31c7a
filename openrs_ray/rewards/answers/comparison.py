"""Compares two readings of answers: words by letter, mathematics by value, lists part by part.

An answer may name a value (x = 5 for 5), list the solutions of a gold's set, or be a set for a gold's inequality.
"""

from collections.abc import Callable, Sequence

import sympy
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import verify
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from openrs_ray.rewards.answers.numerics import TooLargeError, factor, is_number, same_expression, same_number
from openrs_ray.rewards.answers.reading import Reading, Value
from openrs_ray.rewards.records import Comparison

_INCOMPARABLE = (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError)
_KINDS = {
    sympy.Eq: ("=", 1),
    sympy.Ne: ("!=", 1),
    sympy.Lt: ("<", 1),
    sympy.Le: ("<=", 1),
    sympy.Gt: ("<", -1),
    sympy.Ge: ("<=", -1),
}
"""Relations as = or <, and the sign of the sides' difference there."""


def same(gold: Reading, answer: Reading, comparison: Comparison = "gold_first") -> bool:
    if gold.half_of_day and answer.half_of_day and gold.half_of_day != answer.half_of_day:
        return False
    if gold.text and gold.text == answer.text:
        return True
    if gold.option and answer.option and (gold.option[1] or answer.option[1]):
        return gold.option[0] == answer.option[0]
    if gold.words or answer.words:
        return gold.words == answer.words
    if gold.time and answer.time:
        return gold.time == answer.time
    if gold.numeral or answer.numeral:
        return _same_numeral(gold, answer)
    if gold.value is None or answer.value is None:
        return bool(gold.parts) and gold.parts == answer.parts
    try:
        return _same_value(gold.value, answer.value, comparison)
    except (TooLargeError, *_INCOMPARABLE):
        return False


def _same_numeral(gold: Reading, answer: Reading) -> bool:
    """Compares digits, and bases where both have one."""
    if gold.numeral and answer.numeral:
        return gold.numeral == answer.numeral
    numeral, other = (gold.numeral, answer) if gold.numeral else (answer.numeral, gold)
    return numeral is not None and numeral[0] == other.text.lstrip("0")


def _same_value(gold: Value, answer: Value, comparison: Comparison) -> bool:
    gold, answer = _unnamed(gold, answer)
    if is_number(gold) and is_number(answer):
        return same_number(gold, answer)
    if _is_matrix(gold) or _is_matrix(answer):
        return _same_matrix(gold, answer, comparison)
    if _is_relation(gold) and _is_relation(answer):
        return _same_relations(gold, answer, comparison)
    first, second = _ordered(gold, answer, comparison)
    if _is_relation(first) and _is_collection(second):
        return verified(gold, answer, comparison)  # the set of its solutions
    if _is_collection(gold) or _is_collection(answer):
        return _same_collection(gold, answer, comparison)
    if _is_expression(gold) and _is_expression(answer):
        equal = same_expression(gold, answer)
        if equal is not None:
            return equal
    return verified(gold, answer, comparison)


def verified(gold: Value, answer: Value, comparison: Comparison) -> bool:
    """Equality by math-verify alone."""
    return bool(verify(*_ordered(gold, answer, comparison), timeout_seconds=None))


def _ordered(gold: Value, answer: Value, comparison: Comparison) -> tuple[Value, Value]:
    return (gold, answer) if comparison == "gold_first" else (answer, gold)


def _unnamed(gold: Value, answer: Value) -> tuple[Value, Value]:
    """x = 5 as 5 where the other is no relation; "x in S" as S where it is no equation."""
    if isinstance(answer, sympy.Eq) and (
        not _is_relation(gold) or (isinstance(answer.rhs, sympy.Set) and not isinstance(gold, sympy.Eq))
    ):
        answer = answer.rhs
    elif isinstance(gold, sympy.Eq) and _is_name(gold.lhs) and not _is_relation(answer):
        gold = gold.rhs
    return gold, answer


def _is_name(value: sympy.Basic) -> bool:
    """True if made of symbols only: x, x_1, f(x), S/A, (x, y)."""
    return bool(value.free_symbols) and not value.atoms(sympy.Expr) - value.free_symbols - value.atoms(AppliedUndef)


def _is_relation(value: Value) -> bool:
    return isinstance(value, Relational | And)


def _is_expression(value: Value) -> bool:
    return isinstance(value, sympy.Expr) and not _is_matrix(value)


def _is_matrix(value: Value) -> bool:
    return isinstance(value, sympy.MatrixBase | sympy.MatrixExpr)


def _is_collection(value: Value) -> bool:
    return isinstance(value, sympy.Set | sympy.Tuple)


def _same_matrix(gold: Value, answer: Value, comparison: Comparison) -> bool:
    if not (_is_matrix(gold) and _is_matrix(answer)):
        return False
    gold, answer = gold.doit(), answer.doit()
    if not (isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase)):
        return verified(gold, answer, comparison)
    pairs = zip(gold.flat(), answer.flat(), strict=False)
    return gold.shape == answer.shape and all(_same_value(g, a, comparison) for g, a in pairs)


def _same_collection(gold: Value, answer: Value, comparison: Comparison) -> bool:
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.Interval):
        ends = ((gold.start, answer.start), (gold.end, answer.end))
        same_kind = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return same_kind and all(_same_value(g, a, comparison) for g, a in ends)
    golds, answers = _elements(gold), _elements(answer)
    if golds is None or answers is None:
        return verified(gold, answer, comparison)
    ordered = not isinstance(gold, sympy.FiniteSet) and isinstance(gold, sympy.Basic) and _is_collection(gold)
    ordered = ordered or (_names_differ(golds) and not all(map(_is_relation, answers)))
    golds, answers = _unnamed_all(golds, answers)
    equal: Callable[[Value, Value], bool] = lambda g, a: _same_value(g, a, comparison)  # noqa: E731
    if ordered:
        return len(golds) == len(answers) and all(map(equal, golds, answers))
    return _same_elements(golds, answers, equal)


def _elements(value: Value) -> list[Value] | None:
    """Parts of a list, tuple or open interval (a pair); a single value is one part."""
    if isinstance(value, FiniteSet):
        return list(getattr(value, "_unsorted_args", value.args))
    if isinstance(value, sympy.FiniteSet | sympy.Tuple):
        return list(value.args)
    if isinstance(value, sympy.Interval):
        return [value.start, value.end] if value.left_open and value.right_open else None
    return None if isinstance(value, sympy.Set) else [value]


def _names_differ(values: Sequence[Value]) -> bool:
    """True for x = 2, y = 3; False for x_1 = 2, x_2 = 3, which list one unknown's values."""
    names = [str(value.lhs).partition("_")[0] for value in values if isinstance(value, sympy.Eq)]
    return len(names) == len(values) > 1 and len({*names}) == len(names)


def _unnamed_all(golds: list[Value], answers: list[Value]) -> tuple[list[Value], list[Value]]:
    if not any(map(_is_relation, golds)) and all(isinstance(one, sympy.Eq) and _is_name(one.lhs) for one in answers):
        return golds, [one.rhs for one in answers]
    if not any(map(_is_relation, answers)) and all(isinstance(one, sympy.Eq) and _is_name(one.lhs) for one in golds):
        return [one.rhs for one in golds], answers
    return golds, answers


def _same_elements(golds: list[Value], answers: list[Value], equal: Callable[[Value, Value], bool]) -> bool:
    """Equality as sets."""
    golds, answers = _distinct(golds), _distinct(answers)
    if len(golds) != len(answers):
        return False
    for gold in golds:
        met = next((place for place, answer in enumerate(answers) if equal(gold, answer)), None)
        if met is None:
            return False
        del answers[met]
    return True


def _distinct(values: list[Value]) -> list[Value]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _same_relations(gold: Value, answer: Value, comparison: Comparison) -> bool:
    golds, answers = _links(gold), _links(answer)
    if len(golds) != len(answers):
        return False
    if _same_elements(golds, answers, lambda g, a: _same_relation(g, a, comparison)):
        return True
    equations = isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq)
    return equations and _solvable(gold, answer) and verified(gold, answer, comparison)


def _links(relation: Value) -> list[Value]:
    return list(relation._unsorted_args) if isinstance(relation, And) else [relation]


def _solvable(*equations: Relational) -> bool:
    return all(isinstance(side, sympy.Expr) for one in equations for side in one.args)


def _same_relation(gold: Relational, answer: Relational, comparison: Comparison) -> bool:
    """True for x <= 5 and -5 <= -x, and for 2x + 6y = 5 and y = 5/6 - x/3."""
    (kind, gold_sign), (answer_kind, answer_sign) = _KINDS[type(gold)], _KINDS[type(answer)]
    if kind != answer_kind:
        return False
    if gold.lhs == answer.lhs and _same_value(gold.rhs, answer.rhs, comparison):
        return gold_sign == answer_sign
    if not _solvable(gold, answer):
        return False
    sides = [(one.lhs, sympy.Mul(-1, one.rhs, evaluate=False)) for one in (gold, answer)]
    sign = factor(*(sympy.Add(*both, evaluate=False) for both in sides))
    return bool(sign) and (kind in ("=", "!=") or sign == gold_sign * answer_sign)
