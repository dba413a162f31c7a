"""From a completion to its verdict: the accuracy check, every weighted reward, their weighted sum."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from openrs_ray.rewards.accuracy import check_answer
from openrs_ray.rewards.records import Extraction, JudgeItem, RewardInput
from openrs_ray.rewards.table import REWARDS
from openrs_ray.samples import Verdict

WARM_UP = tuple(
    JudgeItem(rf"</think> \boxed{{{answer}}}", 9, "stop", (gold,))
    for answer, gold in ((r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"), ("(x+1)^2", "x^2 + 2x + 1"), (r"\{1, 2\}", "1,2"))
)
"""What a process judges before its first item: the first use of math-verify's parser and SymPy takes a second."""


def judge(item: JudgeItem, weights: Mapping[str, float], extraction: Extraction) -> Verdict:
    """The verdict of one completion; without reward when the check could not judge (unparseable gold)."""
    start = time.perf_counter()
    status, answer = check_answer(item.text, item.gold, extraction)
    values: dict[str, float] = {}
    reward = None
    if status.judged:
        seen = RewardInput(item.text, item.token_count, item.finish_reason, status, answer)
        values = {name: REWARDS[name](seen) for name in weights}
        reward = sum(weights[name] * value for name, value in values.items())
    return Verdict(status, values, reward, answer, seconds=time.perf_counter() - start)


@dataclass(frozen=True)
class Judge:
    """`judge` with its settings, as the checking processes are given it."""

    weights: Mapping[str, float]
    extraction: Extraction

    def __call__(self, item: JudgeItem) -> Verdict:
        return judge(item, self.weights, self.extraction)
