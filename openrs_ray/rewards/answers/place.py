r"""Finds the part of a completion that is its answer: the last boxes, or what follows a marker. For kinds other than math."""

import re

from openrs_ray.rewards.answers.extraction import after_reasoning, final_boxes, is_unfinished
from openrs_ray.rewards.records import UnfinishedReasoning

_WRAPPED = re.compile(
    r"\s*(?:\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt)|mbox)\s*\{(?P<braced>[^{}]*)\}|\*\*(?P<bold>[^*]*)\*\*"
    r"|`(?P<code>[^`]*)`|\$(?P<formula>[^$]*)\$|\\\((?P<inline>.*)\\\))\s*"
)
_MOST_WRAPPINGS = 5


def final_part(text: str, unfinished_reasoning: UnfinishedReasoning) -> str | None:
    """All behind the reasoning; None where the reasoning never ends."""
    if unfinished_reasoning == "no_answer" and is_unfinished(text):
        return None
    return after_reasoning(text)


def stated(part: str, after: str | None) -> str | None:
    r"""The last boxes of a final part, or what follows the last `after` in it: its line, or the boxes on that line.

    Example: stated("So it is\n#### 72\n", "####") == "72"
    """
    if after is None:
        boxed = final_boxes(part)
        return None if boxed is None else unwrapped(boxed)
    line = _line_after(part, after)
    if line is None:
        return None
    boxed = final_boxes(line)
    return unwrapped(line if boxed is None else boxed) or None


def unwrapped(answer: str) -> str:
    r"""Answer without what is around all of it: \text{}, bold type, dollars, spaces."""
    for _ in range(_MOST_WRAPPINGS):
        found = _WRAPPED.fullmatch(answer)
        if found is None:
            break
        answer = found[found.lastgroup or 0]
    return answer.strip()


def _line_after(part: str, marker: str) -> str | None:
    """First line with anything on it behind the last marker, in either case; None without marker."""
    found = list(re.finditer(re.escape(marker), part, re.IGNORECASE))
    if not found:
        return None
    rest = part[found[-1].end() :].lstrip(" \t*_:\r\n")
    return rest.partition("\n")[0].removesuffix("**").strip()
