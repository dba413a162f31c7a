"""Language reward: the completion stays in one language. The mathematics in it has none.

Two views, and a letter counts only if both agree: its Unicode script is one the language is written in, and the detector
(py3langid) takes the passage around it for that language. Time is linear in the text, whatever it holds.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from openrs_ray.rewards.records import Language, RewardInput

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
"""First words of the Unicode names of a language's letters; the other languages are written in Latin."""

_PASSAGE_LETTERS = 100
_DETECTABLE_LETTERS = 30
"""A text with fewer letters is judged by script alone: the detector guesses there."""

# No alternative may look past the next opening of its own kind, or unclosed ones would cost time squared.
_NOT_LANGUAGE = re.compile(
    r"""\$\$[^$]*\$\$ | \$[^$]*\$
    | \\\[ (?: (?! \\[\[\]] ) . )* \\\] | \\\( (?: (?! \\[()] ) . )* \\\)
    | \\begin\{(?P<name>[a-z]+\*?)\} (?: (?! \\begin\{ | \\end\{ ) . )* \\end\{(?P=name)\}
    | \\[A-Za-z]+ \*? (?: \{[^{}]*\} )*
    | </?(?:think|answer)>""",
    re.VERBOSE | re.DOTALL,
)


def language_reward(item: RewardInput, *, wanted: Language) -> float:
    """`language_share` of the completion: the language consistency reward of DeepSeek-R1 (arXiv 2501.12948, section 2.3.2).

    Theirs is the share of words in the wanted language; here it is the share of letters, outside LaTeX.
    """
    return language_share(item.text, wanted)


def language_share(text: str, wanted: Language) -> float:
    """Share of the text's letters outside LaTeX that are in the wanted language; 1.0 when there are none.

    Greek letters count only where Greek is wanted: elsewhere they are mathematics.
    """
    ours = letters = 0
    for passage in _passages(_NOT_LANGUAGE.sub(" ", text)):
        counts: Counter[str] = Counter()
        for character, count in Counter(passage).items():
            counts[_script(character)] += count
        del counts[""]
        if wanted != "el":
            del counts["GREEK"]
        letters += counts.total()
        if counts.total() < _DETECTABLE_LETTERS or _detect(passage) == wanted:
            ours += sum(counts[script] for script in _SCRIPTS.get(wanted, _LATIN))
    return ours / letters if letters else 1.0


def _passages(text: str) -> Iterator[str]:
    """Whole lines, together until there are enough letters for the detector; what is left at the end joins the last."""
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
    """First word of a letter's Unicode name, which for most letters is their script; "" for what is not a letter."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""


def _detect(text: str) -> str:
    language: str = _detector().classify(text)[0]
    return language


@cache
def _detector() -> Any:
    import py3langid  # half a second and 100 MB, which only runs that ask for this reward should pay

    py3langid.set_languages(list(get_args(Language)))
    return py3langid
