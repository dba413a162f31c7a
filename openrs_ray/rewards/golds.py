"""Which gold answers completions can be compared with: asked once, when problems are loaded.

Plain numbers are known at once. Everything else is read in the checking processes, because a gold answer too can keep a parser
busy for ever. Whether a gold can be read decides which problems a run has, and a resumed run must have the same ones: so the
limits are generous, do not follow the config, and a gold that exceeds them is tried once more before it counts as unparseable.
"""

from collections.abc import Sequence
from typing import Literal

from openrs_ray.config.schema import Rewards
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.accuracy import gold_is_parseable, has_plain_number
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.published import published_gold_is_parseable
from openrs_ray.rewards.reading import says_words

Gold = tuple[str, ...]
GoldKind = Literal["number", "expression", "text"]

_DEADLINE_S, _MEMORY_GIB = 20.0, 4.0
_WARM_UP: tuple[Gold, ...] = ((r"\frac{x}{2}",),)
"""The first parse in a process loads the parser; that time must not make a gold unparseable."""


def parseable_golds(golds: Sequence[Gold], rewards: Rewards) -> list[bool]:
    """For each gold (its accepted answers) whether at least one of them can be read. RunError if no process can be started."""
    published = rewards.extraction == "published"
    known = [not published and has_plain_number(gold) for gold in golds]
    hard = list({gold for gold, easy in zip(golds, known, strict=True) if not easy})
    readable: set[Gold] = set()
    if hard:
        judge = judge_published_gold if published else judge_gold
        with CheckPool(judge, rewards.processes, _DEADLINE_S, _MEMORY_GIB, _WARM_UP) as pool:
            verdicts = _judge(pool, hard)
            unsure = [gold for gold, verdict in verdicts.items() if verdict.status in (Status.TIMEOUT, Status.ERROR)]
            verdicts |= _judge(pool, unsure)
        readable = {gold for gold, verdict in verdicts.items() if verdict.status.judged}
    return [easy or gold in readable for gold, easy in zip(golds, known, strict=True)]


def gold_kind(gold: Gold) -> GoldKind:
    """The way in which a readable gold is compared: by its value, as mathematics, or letter by letter."""
    if has_plain_number(gold):
        return "number"
    return "text" if says_words(gold[0]) else "expression"


def _judge(pool: CheckPool[Gold], golds: Sequence[Gold]) -> dict[Gold, Verdict]:
    futures = [pool.submit(gold) for gold in golds]
    return {gold: future.result() for gold, future in zip(golds, futures, strict=True)}


def judge_gold(gold: Gold) -> Verdict:
    """Status CORRECT when the gold can be read, else UNPARSEABLE_GOLD."""
    return Verdict(Status.CORRECT if gold_is_parseable(gold) else Status.UNPARSEABLE_GOLD, {}, None)


def judge_published_gold(gold: Gold) -> Verdict:
    """The same by the reading of `rewards.extraction: published`."""
    return Verdict(Status.CORRECT if published_gold_is_parseable(gold) else Status.UNPARSEABLE_GOLD, {}, None)
