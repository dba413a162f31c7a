"""The teacher's own trial: answers that it ends with tokens of its own."""

import asyncio

import numpy as np

from actors.loop.teacher import EndsAsPolicy
from actors.rollout.worker import Request
from openrs_ray.records import Completion, FinishReason


def test_an_answer_that_the_teacher_ends_in_its_own_way_is_recorded_and_judged_as_ended() -> None:
    """Otherwise its last token would be read as a part of the answer."""
    asked, own, its = Request(0, 0, (7,), 1, 1.0, 8), 1, frozenset({5})

    class Engines:
        def __init__(self, ids: list[int], finish: FinishReason) -> None:
            self.ids, self.finish = ids, finish

        async def sample(self, request: Request) -> Completion:
            ids = np.array(self.ids, dtype=np.int32)
            return Completion(0, 0, ids, np.zeros(len(ids), dtype=np.float32), self.finish, (), 0)

    def ended(*ids: int, finish: FinishReason = "stop") -> list[int]:
        return [*map(int, asyncio.run(EndsAsPolicy(Engines([*ids], finish), own, its).sample(asked)).token_ids)]

    assert ended(12, 5) == [12, 1] and ended(12, 1) == [12, 1] and ended(5, 12) == [5, 12]
    assert ended(12, 5, finish="length") == [12, 5], "cut there, not ended"
