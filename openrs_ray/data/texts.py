"""Equality of problem texts: strict, or by letters and digits alone."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_LOOSE = re.compile(r"\\(?:left|right)(?![a-z])|\\[,;:!]|[\s$]|[.,;:?](?!\d)")


def same_text_key(text: str) -> str:
    """Equal for texts that differ only in case, spacing, dollars and punctuation. Signs count: x + 1 is not x - 1."""
    return _LOOSE.sub("", _plain(text))


def letters_key(text: str) -> str:
    """Letters and digits alone, for comparisons that must miss no duplicate."""
    return "".join(words(text))


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case."""
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
