"""Where a completion's answer stands. Pure text; linear in its length whatever the text holds."""

import re

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

# A box opening, an escaped character (an escaped brace groups nothing), or a brace.
_TOKEN = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)


def after_reasoning(text: str) -> str:
    """What follows the last `</think>`, or the whole text when there is none."""
    return text.rpartition(THINK_CLOSE)[2]


def last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{...} or \\fbox{...}, or None when there is none or the last one never closes.

    Only the last box counts, so that a completion cannot offer several answers. Braces inside are balanced; of nested
    boxes the outer one counts.

    Example: last_boxed(r"\\boxed{1} then \\boxed{\\frac{2}{3}}") == r"\\frac{2}{3}"
    """
    open_braces: list[tuple[int, int] | None] = []  # (start of the box, start of its content), None for a plain brace
    closed: tuple[int, int, int] | None = None  # start of the box, content from, content to
    for token in _TOKEN.finditer(text):
        if token["box"]:
            open_braces.append((token.start(), token.end()))
        elif token["brace"] == "{":
            open_braces.append(None)
        elif token["brace"] == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None:
                closed = (*opened, token.start())
    if closed is None:
        return None
    start, content_from, content_to = closed
    if any(opened is not None and opened[0] > start for opened in open_braces):
        return None
    return text[content_from:content_to].strip()
