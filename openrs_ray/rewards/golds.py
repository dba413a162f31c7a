"""Which gold answers completions can be compared with: asked once, when problems are loaded.

Plain numbers are known at once. Everything else is read in the checking processes, because a gold answer too can keep a parser
busy for ever; one that takes longer than a check may take counts as unparseable.
"""

from collections.abc import Sequence

from openrs_ray.config import Rewards
from openrs_ray.rewards.accuracy import gold_is_parseable, has_plain_number
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.samples import Status, Verdict

Gold = tuple[str, ...]

_WARM_UP: tuple[Gold, ...] = ((r"\frac{x}{2}",),)
"""The first parse in a process loads the parser; that time must not make a gold unparseable."""


def parseable_golds(golds: Sequence[Gold], rewards: Rewards) -> list[bool]:
    """For each gold (its accepted answers) whether at least one of them can be read. RunError if no process can be started."""
    hard = list({gold for gold in golds if not has_plain_number(gold)})
    readable: set[Gold] = set()
    if hard:
        with CheckPool(judge_gold, rewards.processes, rewards.deadline_s, rewards.memory_gib, _WARM_UP) as pool:
            futures = [pool.submit(gold) for gold in hard]
            readable = {gold for gold, future in zip(hard, futures, strict=True) if future.result().status.judged}
    return [gold in readable or has_plain_number(gold) for gold in golds]


def judge_gold(gold: Gold) -> Verdict:
    """Status CORRECT when the gold can be read, else UNPARSEABLE_GOLD."""
    return Verdict(Status.CORRECT if gold_is_parseable(gold) else Status.UNPARSEABLE_GOLD, {}, None)
