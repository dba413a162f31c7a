"""Finds the golds that completions can be compared with.

Limits are generous, not the config's, and golds beyond them are tried again: a resumed run must have the same problems.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.answers.check import gold_is_parseable, has_plain_number
from openrs_ray.rewards.answers.published import published_gold_is_parseable
from openrs_ray.rewards.answers.reading import says_words
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import RewardExtraction

Gold = tuple[str, ...]
GoldKind = Literal["number", "expression", "text"]

_DEADLINE_S, _MEMORY_GIB = 20.0, 4.0
_WARM_UP: tuple[Gold, ...] = ((r"\frac{x}{2}",),)  # Loads the parser: that time must not make a gold unparseable


def parseable_golds(golds: Sequence[Gold], extraction: RewardExtraction = "boxed", processes: int = 2) -> list[bool]:
    """True where a gold can be read. RunError if no process can be started."""
    published = extraction == "published"
    known = [not published and has_plain_number(gold) for gold in golds]
    hard = list({gold for gold, easy in zip(golds, known, strict=True) if not easy})
    readable: set[Gold] = set()
    if hard:
        judge = partial(judge_gold, published_gold_is_parseable if published else gold_is_parseable)
        with CheckPool(judge, processes, _DEADLINE_S, _MEMORY_GIB, _WARM_UP) as pool:
            verdicts = _judge(pool, hard)
            unsure = [gold for gold, verdict in verdicts.items() if verdict.status in (Status.TIMEOUT, Status.ERROR)]
            verdicts |= _judge(pool, unsure)
        readable = {gold for gold, verdict in verdicts.items() if verdict.status.judged}
    return [easy or gold in readable for gold, easy in zip(golds, known, strict=True)]


def gold_kind(gold: Gold) -> GoldKind:
    """Comparison that a readable gold needs: by value, as mathematics, or by letter."""
    if has_plain_number(gold):
        return "number"
    return "text" if says_words(gold[0]) else "expression"


def _judge(pool: CheckPool[Gold, Verdict], golds: Sequence[Gold]) -> dict[Gold, Verdict]:
    futures = [pool.submit(gold) for gold in golds]
    return {gold: future.result() for gold, future in zip(golds, futures, strict=True)}


def judge_gold(is_parseable: Callable[[Gold], bool], gold: Gold) -> Verdict:
    return Verdict(Status.CORRECT if is_parseable(gold) else Status.UNPARSEABLE_GOLD, {}, None)
