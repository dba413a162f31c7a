"""Items asked for together leave in one batch; with a pause, batches come no faster than that."""

import asyncio
from typing import Any

import pytest
import virtual_time

from actors.cluster.together import Together

Batch = list[tuple[int, asyncio.Future[int]]]


class Sent:
    """Answers with the item itself, a second later; `batches`: when, and what."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, list[int]]] = []
        self.given_up = 0

    async def __call__(self, batch: Batch) -> None:
        self.batches.append((asyncio.get_running_loop().time(), [item for item, _ in batch]))
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        for item, answer in batch:
            if not answer.done():
                answer.set_result(item)


async def ask_every(gap_s: float, count: int, together: Together[int, int]) -> list[int]:
    answers = []
    for item in range(count):
        answers.append(together.ask(item))
        await asyncio.sleep(gap_s)
    return list(await asyncio.gather(*answers))


def test_without_a_pause_each_turn_of_the_loop_sends_its_own() -> None:
    sent = Sent()
    assert virtual_time.run(ask_every(0.01, 5, Together(sent))) == [0, 1, 2, 3, 4]
    assert [items for _, items in sent.batches] == [[0], [1], [2], [3], [4]]


def test_with_a_pause_the_first_leaves_at_once_and_the_next_together() -> None:
    sent = Sent()
    assert virtual_time.run(ask_every(0.01, 7, Together(sent, pause_s=0.025))) == list(range(7))
    assert [items for _, items in sent.batches] == [[0], [1, 2], [3, 4], [5, 6]]
    assert [at for at, _ in sent.batches] == pytest.approx([0.0, 0.025, 0.05, 0.075])
    slow = Sent()
    virtual_time.run(ask_every(0.5, 3, Together(slow, pause_s=0.025)))
    assert [at for at, _ in slow.batches] == pytest.approx([0.0, 0.5, 1.0]), "nothing waits where little is asked for"


def test_a_batch_is_given_up_when_all_of_it_is_cancelled_and_not_before() -> None:
    sent = Sent()

    async def cancel(cancelled: int) -> Any:
        together: Together[int, int] = Together(sent)
        answers = [together.ask(item) for item in range(3)]
        await asyncio.sleep(0.1)
        for answer in answers[:cancelled]:
            answer.cancel()
        return await asyncio.gather(*answers, return_exceptions=True)

    assert virtual_time.run(cancel(2))[2] == 2 and sent.given_up == 0
    virtual_time.run(cancel(3))
    assert sent.given_up == 1
