r"""Reads the letter of a multiple choice from a completion: "(B)", "\boxed{\text{B}}", "The answer is B", "B) because ...".

A letter counts where the text states it as the answer, not where it names an option or is a word ("Option A is wrong", "A good
answer would be", "I think"). The last statement wins; one that offers alternatives or contradicts itself is no answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from openrs_ray.rewards.answers.extraction import final_boxes
from openrs_ray.rewards.answers.place import unwrapped

LETTERS = "ABCDEFGHIJ"
"""MMLU-Pro has ten options."""

Letters = tuple[str, ...]
"""() where a statement offers alternatives or contradicts itself."""

_MOST_CHARACTERS, _MOST_STATEMENTS = 10_000, 50
"""Of a final part, from its end, that are looked at."""
_CLAUSE_CHARACTERS = 120
_LONGEST_OPTION = 1_000

_FULL_WIDTH = str.maketrans(
    {**dict(zip("。，：；？！（）、", ".,:;?!(),", strict=True)), **{chr(0xFEE0 + ord(one)): one for one in LETTERS}}
)
_MARKUP = (
    (re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt)|mbox|emph)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[()\[\],;:! ]|[*`$\"“”]|(?<!\w)_+|_+(?!\w)|</?(?:b|strong|answer)>"), ""),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n\s*"), "\n"),
)
_LETTER = r"(?:[(\[{]\s*(?P<bracketed>[A-Ja-j])\s*[)\]}]|(?P<bare>[A-Ja-j])(?![A-Za-z0-9'’]))"
_FIRST = re.compile(rf"(?:(?:either|both|the)\s+)?(?i:(?:options?|choices?|letters?|answers?\s*:?)\s+)?{_LETTER}")
_NEXT = re.compile(
    rf"\s*(?P<joint>,\s*(?:and|or)\b|,|;|/|&|\band/or\b|\band\b|\bor\b)\s*(?i:(?:options?|choices?|letters?)\s+)?{_LETTER}"
)
_FOLLOWS = re.compile(
    r"\s*(?:$|\n|[,;:!)\]}(]|\.(?![a-z0-9]|[A-Z](?![a-z]))|[-–—](?=\s))"
    r"|\s+(?:because|since|as|for|which|with|given|due|rather|and\s+not|not)\b"
)
"""Follows a bare letter that is an answer, not a word, a name or part of a formula."""
_ENDS = re.compile(r"\s*(?:$|\n|[)\]}]|[.,](?=\s|$))")
"""Follows one in lower case."""

_GRADED = r"(?:correct|right|best|final|chosen|selected|appropriate|my)\s+"
_STATES = re.compile(
    rf"\b(?:(?:{_GRADED})?(?:answers?|solution)(?:\s+(?:choice|option|letter))?|{_GRADED}(?:options?|choices?|letters?|responses?))"
    r"(?:\s+(?:to\s+(?:the|this)\s+(?:question|problem)|here))?"
    r"(?:\s*[:=]|[^\S\n]*\n|\s+(?:is|are|(?:would|must|should|will|has\s+to|seems\s+to)(?:\s+[a-z]+)?\s+be)\b\s*:?"
    r"(?:\s*(?:therefore|thus|hence|clearly|definitely|then|most\s+likely|likely|probably)\b,?)?)\s*",
    re.IGNORECASE,
)
_GRADES = re.compile(
    rf"(?:^|[.!?:;,]\s*|(?i:\b(?:options?|choices?|answers?|letters?|so|therefore|thus|hence|that|think|believe)\s+)){_LETTER}"
    r"(?:\s*\([^()\n]{0,80}\))?\s+is\s+(?:indeed\s+|clearly\s+|therefore\s+|thus\s+)?(?:the\s+)?(?:most\s+)?"
    r"(?:correct|right|best|appropriate|accurate|final\s+answer|answer)\b(?!\s*\?)",
    re.MULTILINE,
)
_CHOOSES = re.compile(
    r"\b(?:choose|pick|select|go\s+with|(?:it|this)(?:\s+is|['’]s|\s+must\s+be)|therefore|thus|hence|so)\b[,:]?\s+",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:not|never|neither|nor|cannot|if|whether|unless|suppose|assum\w+|wrong|incorrect|tempting|common|possible|another)\b|n['’]t\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.!?;:,\n]|\b(?:but|so|therefore|thus|hence|because)\b", re.IGNORECASE)
_BEGINS = re.compile(rf"[-\s]*(?i:(?P<named>options?|choices?)\s+)?{_LETTER}")
_NOT = re.compile(r"(?:definitely |clearly |certainly )?not\s+")
_JOINED = re.compile(r"\b(?:or|and|nor)\s*$")
_WORDS = frozenset("AaI")
_SIDE_BY_SIDE = re.compile(r"[A-J]{2,10}")
_SENTENCE_END = re.compile(r"\.\s|\s(?:because|since)\b")


@dataclass(frozen=True)
class Options:
    texts: Mapping[str, str]
    """By letter."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Letters by the labels of the data: ARC numbers some of its options."""

    @classmethod
    def of(cls, cell: Any) -> "Options":
        """A list of texts, ARC's {"text": [...], "label": [...]}, or texts by letter. ValueError for anything else."""
        if isinstance(cell, Mapping) and {"text", "label"} <= cell.keys():
            texts, labels = list(cell["text"]), [str(label).strip() for label in cell["label"]]
        elif isinstance(cell, Mapping):
            labels, texts = (
                zip(*((str(k), v) for k, v in cell.items() if v is not None), strict=True) if cell else ((), ())
            )
        else:
            texts = list(cell) if isinstance(cell, list | tuple) else []
            labels = LETTERS[: len(texts)]
        if not 2 <= len(texts) <= len(LETTERS) or len(set(labels)) != len(texts):
            raise ValueError(f"options are a list of 2 to {len(LETTERS)} texts, or texts by letter")
        letters = labels if set(labels) <= set(LETTERS) else LETTERS
        return cls(dict(zip(letters, map(str, texts), strict=False)), dict(zip(labels, letters, strict=False)))

    def letter_of(self, text: str) -> str | None:
        """Letter of the one option with this text, in any case and spacing."""
        wanted = _compared(text) if self.texts and len(text) <= _LONGEST_OPTION else ""
        found = [letter for letter, option in self._compared.items() if wanted and option == wanted]
        return found[0] if len(found) == 1 else None

    @cached_property
    def _compared(self) -> Mapping[str, str]:
        return {letter: _compared(text) for letter, text in self.texts.items()}


NO_OPTIONS = Options({})


def claimed(part: str, options: Options = NO_OPTIONS, several: bool = False) -> Letters:
    """Letters that a completion's final part states as its answer; () for none, or where that is ambiguous.

    `several`: letters side by side are an answer, too ("ACD").
    """
    part = part[-_MOST_CHARACTERS:]
    boxed = final_boxes(part)
    box = None if boxed is None else read_letters(boxed, options, several)
    if box is not None:
        stated = _last_stated(_plain(part[part.rfind("boxed") :]), options)
        return box if stated is None else stated
    text = _plain(part)
    ways = (_last_stated(text, options), _line(text, options, several), _only([*_graded(text), *_chosen(text)]))
    return next((way for way in ways if way is not None), ())


def read_letters(answer: str, options: Options = NO_OPTIONS, several: bool = False) -> Letters | None:
    """Letters of a text that is nothing but an answer: "(B)", "B. Paris", "A, C", an option's text. None for anything else."""
    text = _plain(unwrapped(answer)).strip(" {}[]\\.")
    text = text[1:-1] if text.startswith("(") and text.endswith(")") and text.count("(") == 1 and "," in text else text
    side_by_side = _side_by_side(text) if several else None
    return side_by_side or _claim(text, 0, options)


def gold_letters(gold: str, options: Options = NO_OPTIONS, index: bool = False) -> Letters:
    """Letters of a gold: "B", "(B)", "A, C", "AC", a label, an option's text, or with `index` its place from 0. () for others."""
    gold = gold.strip()
    if index:
        places = [int(one) for one in re.findall(r"[0-9]+", gold)] if re.fullmatch(r"[\[\]0-9,; ]{1,40}", gold) else []
        return tuple(LETTERS[place] for place in places if place < (len(options.texts) or len(LETTERS)))
    if gold in options.labels:
        return (options.labels[gold],)
    letters = read_letters(gold, options, several=True) or ()
    return letters if not options.texts or set(letters) <= options.texts.keys() else ()


def _last_stated(text: str, options: Options) -> Letters | None:
    """ "The answer is B", "Final answer: (b)", "the correct option is B. Paris"."""
    denied: set[str] = set()
    for found in reversed(_found(_STATES, text)):
        negation = _NOT.match(text, found.end())
        claim = _claim(text, negation.end() if negation else found.end(), options)
        if negation or _is_denied(text, found.start()):
            denied |= {*(claim or ())} if negation else set()
        elif claim is not None:
            return () if denied & {*claim} else claim
    return None


def _line(text: str, options: Options, several: bool) -> Letters | None:
    """The one line that is all answer ("**B**"), or the first, when it begins with the only letter that begins lines."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    whole = [letters for line in lines if (letters := _whole_line(line, options, several)) is not None]
    if whole:
        return _only(whole)
    begun = {_letter(found) for line in lines if (found := _BEGINS.match(line)) and _is_marked(line, found)}
    named = lines and (first := _BEGINS.match(lines[0])) and first["named"]
    return _claim(lines[0], 0, options) if lines and not named and len(begun) <= 1 else None


def _whole_line(line: str, options: Options, several: bool) -> Letters | None:
    listed = _listed(line, 0)
    if listed is not None and not line[listed.end :].strip(" .)"):
        return listed.stated
    if letter := options.letter_of(line):
        return (letter,)
    return _side_by_side(line.strip(" .")) if several else None


def _graded(text: str) -> list[Letters]:
    """ "B is correct", "Option (B) is the right answer"."""
    places = ((one, max(one.start("bare"), one.start("bracketed"))) for one in _found(_GRADES, text))
    return [
        (_letter(one),) for one, place in places if not _is_denied(text, place) and not _is_joined(text, one.start())
    ]


def _chosen(text: str) -> list[Letters]:
    """ "I choose B", "so it's (B)"."""
    found = (_listed(text, one.end()) for one in _found(_CHOOSES, text) if not _is_denied(text, one.start()))
    return [one.stated for one in found if one is not None and one.capital]


def _found(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [*pattern.finditer(text)][-_MOST_STATEMENTS:]


def _only(claims: Sequence[Letters]) -> Letters | None:
    """The claim that all are; () where they differ."""
    return (claims[0] if len({*claims}) == 1 else ()) if claims else None


@dataclass(frozen=True, slots=True)
class _Listed:
    """Letters that stand at a place, up to `end`."""

    letters: Letters
    alternatives: bool
    capital: bool
    end: int

    @property
    def stated(self) -> Letters:
        return () if self.alternatives and len({*self.letters}) > 1 else tuple(dict.fromkeys(self.letters))


def _claim(text: str, start: int, options: Options) -> Letters | None:
    """Letters stated at a place of a plain text, or the option whose text stands there."""
    line = text[start : start + _LONGEST_OPTION].lstrip().partition("\n")[0]
    by_text = options.letter_of(line) or options.letter_of(_SENTENCE_END.split(line)[0])
    listed = _listed(text, start)
    if listed is None or (options.texts and not {*listed.letters} <= options.texts.keys()):
        return (by_text,) if by_text else None
    named = options.letter_of(text[listed.end : listed.end + _LONGEST_OPTION].partition("\n")[0].strip(" .:)-–—("))
    contradicts = any(one is not None and one not in listed.letters for one in (by_text, named))
    return () if contradicts else listed.stated


def _listed(text: str, start: int) -> _Listed | None:
    """None where no letter stands there, or where the last one is a word."""
    first = _FIRST.match(text, start)
    if first is None:
        return None
    found, alternatives = [first], [False]
    while following := _NEXT.match(text, found[-1].end()):
        found.append(following)
        alternatives.append("or" in following["joint"] or following["joint"] == "/")
    if not _is_stated(text, found[-1]) and len(found) > 1 and found[-1]["joint"] == "," and found[-1]["bare"] in _WORDS:
        found, alternatives = found[:-1], alternatives[:-1]  # "B, a prime" or "B, I think"
    if not _is_stated(text, found[-1]):
        return None
    capital = first["bare"] is None or first["bare"].isupper()
    return _Listed(tuple(map(_letter, found)), any(alternatives), capital, found[-1].end())


def _is_stated(text: str, found: re.Match[str]) -> bool:
    """True if a letter is no word; one in lower case, which "a" is, only at an end."""
    if found["bare"] is None:
        return True
    return bool((_FOLLOWS if found["bare"].isupper() else _ENDS).match(text, found.end()))


def _is_marked(line: str, found: re.Match[str]) -> bool:
    """True for "A)", "A." and "(A)" at the start of a line."""
    return found["bare"] is None or line[found.end() : found.end() + 1] in (")", ".", ":")


def _is_denied(text: str, end: int) -> bool:
    """True if the clause before says "not", "if" and the like."""
    return bool(_DENIES.search(_CLAUSE.split(text[max(0, end - _CLAUSE_CHARACTERS) : end])[-1]))


def _is_joined(text: str, end: int) -> bool:
    return bool(_JOINED.search(text[max(0, end - _CLAUSE_CHARACTERS) : end]))


def _side_by_side(text: str) -> Letters | None:
    return tuple(text) if _SIDE_BY_SIDE.fullmatch(text) and list(text) == sorted(set(text)) else None


def _letter(found: re.Match[str]) -> str:
    return str(found["bracketed"] or found["bare"]).upper()


def _plain(text: str) -> str:
    """Text without bold type, dollars, boxes and the like."""
    text = text.translate(_FULL_WIDTH)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text


def _compared(text: str) -> str:
    return " ".join(_plain(unwrapped(text)).casefold().split()).strip(" .,;:!'")
