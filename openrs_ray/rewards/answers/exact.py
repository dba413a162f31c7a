"""Compares answers as strings, as they are or without differences that a recipe calls meaningless."""

import re
import unicodedata
from collections.abc import Collection
from typing import Literal

Ignored = Literal["case", "whitespace", "punctuation", "unicode", "articles"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


def normalised(answer: str, ignore: Collection[Ignored]) -> str:
    """Answer, trimmed, without the differences in `ignore`.

    punctuation: Unicode's categories P; articles: a, an, the; unicode: NFKC, by which full-width letters, ligatures and accents
    written apart are equal to their plain forms.
    """
    if "unicode" in ignore:
        answer = unicodedata.normalize("NFKC", answer)
    if "case" in ignore:
        answer = answer.casefold()
    if "punctuation" in ignore:
        answer = "".join(one for one in answer if unicodedata.category(one)[0] != "P")
    if "articles" in ignore:
        answer = _ARTICLES.sub(" ", answer)
    if "whitespace" in ignore or "articles" in ignore:
        answer = " ".join(answer.split())
    return answer.strip()
