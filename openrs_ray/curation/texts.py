"""When two problems are the same one: as texts, by their letters and digits, or by words in a row."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

_WORD = re.compile(r"[^\W_]+")
_LOOSE = re.compile(r"\\(?:left|right)(?![a-z])|\\[,;:!]|[\s$]|[.,;:?](?!\d)")

Gram = tuple[str, ...]


def same_text_key(text: str) -> str:
    """Equal for texts that differ only in case, spacing, dollars and punctuation. Signs count: x + 1 is not x - 1."""
    return _LOOSE.sub("", _plain(text))


def letters_key(text: str) -> str:
    """Letters and digits alone: equal for more texts than are the same, as it should be where nothing may be missed."""
    return "".join(words(text))


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case; commands of LaTeX are words like others."""
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class OverlapIndex:
    """Evaluation problems, to be asked which of other problems overlap with them.

    Two rules: the same letters and digits, or `length` words in a row in common. Of an evaluation problem with fewer words
    all of them must stand in a row, and with fewer than `shortest` only the first rule holds. Words in a row that more than
    `common` of the problems asked about have make no overlap. The numbers 13, 8 and 10 are those of Brown et al. 2020,
    arXiv 2005.14165, appendix C; there 8 to 13 is a choice per evaluation set, by the length of its problems.
    """

    def __init__(self, problems: Mapping[str, Sequence[str]], length: int, shortest: int, common: int) -> None:
        """`problems`: texts by evaluation set."""
        self._common = common
        self._texts: dict[str, tuple[str, int]] = {}
        self._grams: dict[Gram, tuple[str, int]] = {}
        for name, texts in problems.items():
            for number, text in enumerate(texts, start=1):
                self._texts.setdefault(letters_key(text), (name, number))
                found = words(text)
                if len(found) >= shortest:
                    for gram in _grams(found, min(length, len(found))):
                        self._grams.setdefault(gram, (name, number))
        self._lengths = sorted({len(gram) for gram in self._grams})

    def overlaps(self, texts: Sequence[str]) -> list[str]:
        """For each text the reason that it overlaps, or "". Example: "same text as math500: its problem 17"."""
        shared = [self._shared(text) for text in texts]
        often = Counter(gram for grams in shared for gram in grams)
        return [self._reason(text, grams, often) for text, grams in zip(texts, shared, strict=True)]

    def _shared(self, text: str) -> dict[Gram, None]:
        found = words(text)
        grams = (gram for length in self._lengths for gram in _grams(found, length))
        return dict.fromkeys(gram for gram in grams if gram in self._grams)

    def _reason(self, text: str, grams: Mapping[Gram, None], often: Counter[Gram]) -> str:
        if place := self._texts.get(letters_key(text)):
            return f"same text as {place[0]}: its problem {place[1]}"
        for gram in grams:
            if often[gram] <= self._common:
                name, number = self._grams[gram]
                return f"words of {name}: {' '.join(gram)!r} stands in its problem {number}"
        return ""


def _grams(found: Sequence[str], length: int) -> Iterator[Gram]:
    return (tuple(found[start : start + length]) for start in range(len(found) - length + 1))
