"""Accuracy check of the Open-RS authors' code: math-verify on the whole completion, as of 0.5.2.

After github.com/knoveleng/open-rs (`src/open_r1/rewards.py`); docs/rewards.md has the rules.
"""

import logging
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse
from math_verify.grader import get_pct_val

from openrs_ray.records import Status
from openrs_ray.rewards.answers.comparison import verified
from openrs_ray.rewards.answers.extraction import THINK_OPEN
from openrs_ray.rewards.records import Comparison

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off, which we mean
logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)  # each reading warns that `equations` is deprecated

Parsed = list[Any]

_NORMALIZATION = replace(LatexExtractionConfig().normalization_config, equations=True)
_GOLD = LatexExtractionConfig(normalization_config=_NORMALIZATION)
_ANSWER, _ANSWER_FOR_COSINE = (
    LatexExtractionConfig(
        normalization_config=replace(_NORMALIZATION, nits=False, malformed_operators=False, boxed=boxed),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    for boxed in ("all", "none")
)
_BOX = re.compile(r"(?P<joined>\}\s*(?:and|or|,)\s*)?\\(?:boxed|fbox)")
_APART = " " * 70  # math-verify joins boxes that are closer than this


def check_published(
    text: str, gold: tuple[str, ...], comparison: Comparison, for_cosine: bool = False
) -> tuple[Status, str | None]:
    r"""Status of a completion, and its answer.

    `for_cosine`: their cosine reward set `boxed=True`, which the parser does not know, and so took "$x = \boxed{9}.$" and
    "\[\boxed{9\text{ cm}}\]" for wrong.
    """
    golds = [found for one in gold if (found := _parse_gold(one))]
    if not golds:
        return Status.UNPARSEABLE_GOLD, None
    parsed = _parse(_boxes_apart(text.removeprefix(THINK_OPEN)), _ANSWER_FOR_COSINE if for_cosine else _ANSWER)
    if not parsed:
        return Status.NO_ANSWER, None
    correct = any(verified(found, parsed, comparison) for found in golds)
    return Status.CORRECT if correct else Status.WRONG, str(parsed[-1])


def published_gold_is_parseable(gold: tuple[str, ...]) -> bool:
    return any(_parse_gold(one) for one in gold)


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> Parsed:
    return _parse(_boxes_apart(gold), _GOLD)


def _parse(text: str, how: LatexExtractionConfig) -> Parsed:
    found = parse(text, [how], extraction_mode="first_match", parsing_timeout=None)
    return [_percent_evaluated(one) for one in found]


def _boxes_apart(text: str) -> str:
    """Room before each box that begins an answer."""
    return _BOX.sub(lambda box: box[0] if box["joined"] else _APART + box[0], text)


def _percent_evaluated(found: Any) -> Any:
    """9% as 9/100 only; math-verify takes it for 9, too."""
    return found if get_pct_val(found) is None else found.doit()
