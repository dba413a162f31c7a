"""Language reward: letters outside mathematics whose script and passage (by py3langid) are of the wanted language."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from openrs_ray.rewards.records import RewardInput

Language = Literal[
    "ar", "cs", "de", "el", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "uk", "vi",
    "zh",
]  # fmt: skip
"""ISO 639-1."""

_LATIN = frozenset({"LATIN"})
_SCRIPTS: dict[str, frozenset[str]] = {
    **{code: frozenset({"CYRILLIC"}) for code in ("ru", "uk")},
    "ar": frozenset({"ARABIC"}),
    "el": frozenset({"GREEK"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    "ko": frozenset({"HANGUL"}),
    "th": frozenset({"THAI"}),
    "zh": frozenset({"CJK"}),
}
"""First words of the Unicode names of a language's letters; default Latin."""

_PASSAGE_LETTERS = 100
_DETECTABLE_LETTERS = 30  # With fewer letters the detector guesses, and the script alone decides

# No alternative may look past the next opening of its own kind, or unclosed ones would cost time squared.
_NOT_LANGUAGE = re.compile(
    r"""\$\$[^$]*\$\$ | \$[^$]*\$
    | \\\[ (?: (?! \\[\[\]] ) . )* \\\] | \\\( (?: (?! \\[()] ) . )* \\\)
    | \\begin\{(?P<name>[a-z]+\*?)\} (?: (?! \\begin\{ | \\end\{ ) . )* \\end\{(?P=name)\}
    | \\[A-Za-z]+ \*? (?: \{[^{}]*\} )*
    | </?(?:think|answer)>""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Parameters:
    wanted: Language = "en"
    """The language that completions should be in."""


def reward(item: RewardInput, parameters: Parameters) -> float:
    """Language consistency of DeepSeek-R1 (arXiv 2501.12948, section 2.3.2), which counts words."""
    return language_share(item.text, parameters.wanted)


def language_share(text: str, wanted: Language) -> float:
    """1.0 without letters."""
    ours = letters = 0
    for passage in _passages(_NOT_LANGUAGE.sub(" ", text)):
        counts: Counter[str] = Counter()
        for character, count in Counter(passage).items():
            counts[_script(character)] += count
        del counts[""]
        if wanted != "el":
            del counts["GREEK"]  # mathematics
        letters += counts.total()
        if counts.total() < _DETECTABLE_LETTERS or _detect(passage) == wanted:
            ours += sum(counts[script] for script in _SCRIPTS.get(wanted, _LATIN))
    return ours / letters if letters else 1.0


def _passages(text: str) -> Iterator[str]:
    """Whole lines with enough letters for the detector; the rest joins the last."""
    passages: list[list[str]] = [[]]
    letters = 0
    for line in text.splitlines():
        if letters >= _PASSAGE_LETTERS:
            passages.append([])
            letters = 0
        passages[-1].append(line)
        letters += sum(map(str.isalpha, line))
    if letters < _PASSAGE_LETTERS and len(passages) > 1:
        rest = passages.pop()
        passages[-1] += rest
    yield from map("\n".join, passages)


@cache
def _script(character: str) -> str:
    """The first word of a letter's Unicode name; "" for other characters."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""


def _detect(text: str) -> str:
    language: str = _detector().classify(text)[0]
    return language


@cache
def _detector() -> Any:
    import py3langid  # half a second and 100 MB, which only runs that ask for this reward should pay

    py3langid.set_languages(list(get_args(Language)))
    return py3langid
