r"""Answers that are words or letters: "Evelyn", "true", "BADC", "(C) the larger one".

Words stand in \text{}, are capitals ("IV") or begin with one ("True"), or have four or more letters and a vowel ("left");
"xy" and "abc" are products.
"""

import re

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"[A-Za-z0-9\s.,;:'\"()/?!&-]*")
_LETTERS = re.compile(r"[A-Za-z]+")
_NOT_WORDS = frozenset(
    {
        *("and", "or", "sqrt", "infinity", "dots", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "pi"),
        *("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
    }
)
_SHORT_WORDS = frozenset({"yes", "no", "odd", "one", "two", "six", "ten", "all", "any", "not"})
_OPTION = re.compile(r"\(?([A-J])\)?")
_OPTION_WITH_TEXT = re.compile(r"(?:\(([A-J])\)\s*[:.]?|([A-J])\s*[):.])\s*(?!\s)(.+)")


def words(tidied: str) -> str | None:
    """Words in lower case; None for mathematics."""
    plain = _TEXT.sub(r" \1 ", tidied).strip(" .")
    if not _ONLY_WORDS.fullmatch(plain):
        return None
    in_text = {token for inner in _TEXT.findall(tidied) for token in _LETTERS.findall(inner) if len(token) > 1}
    tokens = [token for token in _LETTERS.findall(plain) if token not in _NOT_WORDS]
    if not any(token in in_text or _is_word(token) for token in tokens):
        return None
    return " ".join(re.findall(r"[a-z0-9]+", plain.lower()))


def is_phrase(tidied: str) -> bool:
    r"""True if words stand side by side without \text{}: prose, which is no gold answer."""
    return " " in _TEXT.sub("", tidied).strip()


def option(tidied: str) -> tuple[str, bool] | None:
    """Letter of a multiple choice, and True if it stands without the option's text."""
    plain = _TEXT.sub(r"\1", tidied).strip(" .")
    if found := _OPTION.fullmatch(plain):
        return found[1], True
    found = _OPTION_WITH_TEXT.fullmatch(plain)
    if found is None or re.search(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])|(?<![A-Za-z])or(?![A-Za-z])", found[3]):
        return None  # no letter, or several
    return found[1] or found[2], False


def _is_word(token: str) -> bool:
    if token.islower():
        return token in _SHORT_WORDS or (len(token) > 3 and bool(set(token) & set("aeiouy")))
    return len(token) > 2 or (len(token) == 2 and token.isupper())
