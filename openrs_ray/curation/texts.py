"""Overlap of problems with evaluation problems: by text, or by words in a row."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from openrs_ray.data.texts import letters_key, words

Gram = tuple[str, ...]


class OverlapIndex:
    """Finds the same letters and digits as in an evaluation problem, or `length` words in a row.

    Shorter problems need all their words, and `shortest` at least. Words in a row in more than `common` problems do not count.
    Defaults: Brown et al. 2020, arXiv 2005.14165, appendix C.
    """

    def __init__(self, problems: Mapping[str, Sequence[str]], length: int, shortest: int, common: int) -> None:
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
        """ "" without overlap. Example: "same text as math500: its problem 17"."""
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
