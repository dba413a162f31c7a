"""Values and sizes in messages: on one line, and cut where they are long."""

import json
import re
from itertools import islice
from typing import Any

GIB = 1 << 30


_WORD = re.compile(r"(\s*)([a-z])(?=[a-z]*('s\b|[ ,:;]|$))")


def sentences(text: str) -> str:
    """Each line with a capital letter and a full stop; the name of a field, a path or an option keeps its first letter.

    For the place that shows messages: elsewhere one may stand inside another.
    """
    return "\n".join(map(_sentence, text.split("\n")))


def _sentence(line: str) -> str:
    line = _WORD.sub(lambda found: found[1] + found[2].upper(), line, count=1) if _WORD.match(line) else line
    return line if not line or line[-1] in ".!?:" else f"{line}."


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def quoted(value: Any, most: int = 60) -> str:
    return shortened(repr(value), most)


def as_json(value: Any, most: int = 200) -> str:
    """The beginning of any value as JSON on one line."""
    pieces = json.JSONEncoder(default=str).iterencode(value)
    try:
        return "".join(islice(pieces, most))  # piece by piece: YAML's aliases make a few lines grow without end
    except (ValueError, RecursionError):  # holds itself, is too deep, or is an integer of over 4300 digits
        return f"a {type(value).__name__} that is too large to show"


def size_text(size: float) -> str:
    """Example: "1.5 GiB" """
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"


def gib(size: float) -> str:
    """Bytes in GiB. Examples: "1,024.0", "0.012" """
    return f"{size / GIB:,.1f}" if size >= 0.1 * GIB else f"{size / GIB:.3f}"


def clock(seconds: float) -> str:
    """Example: "0:02:10" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def short_clock(seconds: float) -> str:
    """Example: "2:10" """
    return clock(seconds).removeprefix("0:").removeprefix("0") if seconds < 3600 else clock(seconds)
