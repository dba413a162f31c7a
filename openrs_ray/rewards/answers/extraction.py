"""Finds a completion's answer. Pure text; linear in its length."""

import re
from dataclasses import dataclass

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

_BETWEEN_BOXES = re.compile(
    r"(?:\s|\\[,;:!()\[\] ]|\$|\\q?quad(?![a-z])|,|;|(?<![A-Za-z])(?:and|or)(?![A-Za-z])|\\text\s*\{\s*,?\s*(?:and|or)\s*\}"
    r"|[A-Za-z](?:_\{?\w+\}?)?\s*=)*"
)
"""Commas, "and", "or", the next variable's name."""
_LONGEST_JOIN = 70

# The start of a box, an escaped character (an escaped brace groups nothing), or a brace.
_TOKEN = re.compile(r"(?P<box>\\{1,3}(?:boxed|fbox)\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)


def after_reasoning(text: str) -> str:
    """All text without `</think>`."""
    return text.rpartition(THINK_CLOSE)[2]


def is_unfinished(text: str) -> bool:
    """True if a `<think>` is never closed."""
    return text.rfind(THINK_OPEN) > text.rfind(THINK_CLOSE)


def final_boxes(text: str) -> str | None:
    r"""The last box and those that commas, "and" or "or" join with it, once each.

    Example: final_boxes(r"Not \boxed{1}. It is \boxed{2} or \boxed{3}.") == "2, 3"
    """
    found = _boxes(text)
    if not found:
        return None
    contents = [found[-1].content]
    for box, following in zip(found[-2::-1], found[:0:-1], strict=True):
        if not _are_joined(text[box.end : following.start]):
            break
        contents.append(box.content)
    return ", ".join(dict.fromkeys(reversed(contents)))


def _are_joined(between: str) -> bool:
    if len(between) > _LONGEST_JOIN or not re.search("[,;]|and|or", between):
        return False
    return bool(_BETWEEN_BOXES.fullmatch(between))


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} or \fbox{...}, the outer one of nested boxes; None if it never closes."""
    found = _boxes(text)
    return found[-1].content if found else None


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    content: str
    end: int


def _boxes(text: str) -> list[_Box]:
    """Boxes in the order in which they close; none when the last one never closes."""
    open_braces: list[tuple[int, int] | None] = []  # (start of the box, start of its content), None for a plain brace
    boxes: list[_Box] = []
    for token in _TOKEN.finditer(text):
        if token["box"]:
            open_braces.append((token.start(), token.end()))
        elif token["brace"] == "{":
            open_braces.append(None)
        elif token["brace"] == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None:
                while boxes and boxes[-1].start > opened[0]:
                    boxes.pop()
                boxes.append(_Box(opened[0], text[opened[1] : token.start()].strip(), token.end()))
    if boxes and any(opened is not None and opened[0] > boxes[-1].start for opened in open_braces):
        return []
    return boxes
