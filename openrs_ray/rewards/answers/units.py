r"""Drops units, which are not compared; never a word that offers another value ("or", "if", "not")."""

import re

_DEGREES = re.compile(r"\s*\^?\s*\{?\s*\\(?:circ|degree)(?![A-Za-z])\s*\}?(?:\s*(?:C|F)(?![A-Za-z]))?")
_TRIGONOMETRIC = re.compile(r"(?<![A-Za-z])(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?"
_TEXT_TAIL = re.compile(rf"(?<=[0-9A-Za-z)}}\]%!])((?:\s|/|\\cdot)*\\text\s*\{{[^{{}}0-9\\]*\}}{_POWER})+\s*$")
_WORD_TAIL = re.compile(rf"(?<=[0-9)}}])\s+(?![A-Z]{{2}})[A-Za-z]{{2,}}(?:(?:\s+|/)[A-Za-z]+)*\.?{_POWER}\s*$")
_ATTACHED_TAIL = re.compile(rf"(?<=[0-9])(?:mm|cm|dm|km|kg|mg|ml|ft|mph|min|hrs?|sec|inches|degrees?){_POWER}\s*$")
_LETTER_TAIL = re.compile(r"(?<=[0-9)}])(?:\s|~|\\[,;:! ])+[mgsLhNJWVKACTF]\s*$")
_NO_UNIT = re.compile(
    r"(?<![A-Za-z])(?:and|or|if|not|otherwise|when|then|to|no|none|never|maybe|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|mod"
    r"|more|less|greater|fewer|between|than|plus|minus|times|over|by|squared|cubed|half|third|quarter|base|choose|factorial)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_QUALIFIER = re.compile(
    r"\s*,?\s*(?:\\text\s*\{\s*,?\s*for (?:all|any|every|each)(?: [a-z ]*)?\}|(?<![A-Za-z])for (?:all|any|every|each)(?![A-Za-z])"
    r"|\\forall(?![A-Za-z]))[^0-9,=<>]*$"
)
_ORDINAL = re.compile(r"(?<=[0-9])\s*(?:\^\s*)?\{?\s*(?:\\text\s*\{\s*)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}?\s*\}?")
_LEADING = re.compile(
    r"^\s*(?:\\text\s*\{\s*)?(?:about|approximately|exactly|(?:the )?(?:final )?answer(?: is)?\s*:?)(?:\s*\}|\s+)\s*"
    r"(?=[-+0-9\\])",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"\s*(?:\\text\s*\{\s*)?(?<![A-Za-z])(?:percent|per cent|pct)(?![A-Za-z])(?:\s*\})?")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(?<=[0-9])\s*(?:\\text\s*\{{\s*)?({'|'.join(_SCALES)})(?![A-Za-z])(\s*\}})?")
_TIME_OF_DAY = re.compile(r"(?<=[0-9])\s*(?:\\text\s*\{\s*)?[apAP]\.?\s?[mM](?![A-Za-z])\.?\s*\}?\s*$")
_HALF_OF_DAY = re.compile(r"(?<![A-Za-z])([ap])\.?\s?m(?![A-Za-z])", re.IGNORECASE)


def without_units(tidied: str) -> str:
    tidied = _TIME_OF_DAY.sub("", tidied)
    text = _PERCENT.sub(r"\\%", _ORDINAL.sub("", _LEADING.sub("", tidied)))
    text = _SCALE.sub(lambda found: rf"\cdot 10^{{{_SCALES[found[1]]}}}" + ("" if found[2] else r" "), text)
    if not _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(" ", text).strip()
    text = _QUALIFIER.sub("", text) or text
    for tail in (_TEXT_TAIL, _WORD_TAIL, _ATTACHED_TAIL):
        found = tail.search(text)
        if found and not _NO_UNIT.search(found[0]) and found.start():
            text = text[: found.start()]
    return text.strip(" ,;")


def without_letter(answer: str) -> str:
    r"""Answer without a unit of one letter that stands apart: 5 m, 300\,K, not 5m."""
    return _LETTER_TAIL.sub("", answer)


def half_of_day(text: str) -> str | None:
    """ "a" for a.m., "p" for p.m., None unless there is exactly one."""
    found = _HALF_OF_DAY.findall(text)
    return found[0].lower() if len(found) == 1 else None
