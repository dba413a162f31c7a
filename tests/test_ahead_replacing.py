"""Sampling ahead with groups that are replaced: the age bound, the bound on what is drawn, and exact accounting hold."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from test_ahead import PROBLEM, P, run

from actors.ahead import GroupsAhead
from actors.batch import Batch
from actors.trainer import Progress
from openrs_ray.attempts import start_attempt
from openrs_ray.record import CompletionRecord, check_accounting
from openrs_ray.samples import Completion, Group, Problem, Status, Verdict, VersionSpan

SAMPLES, STEPS = 2, 20


class Simulation:
    """The asynchronous loop with random times and random groups without spread; what it sees is checked and recorded."""

    def __init__(self, folder: Path, staleness: int, most_replaced: int, uniform_share: float, seed: int) -> None:
        self._folder, self._staleness, self._most_replaced = folder, staleness, most_replaced
        self._uniform_share, self._rng = uniform_share, np.random.default_rng(seed)
        self._record = CompletionRecord(folder)
        self.version = 0
        self.progress = Progress()
        self.admitted: dict[int, int] = {}
        self.most_under_way = 0
        self.batches: list[Batch] = []

    async def _sample(self, position: int, problem: Problem) -> Group:
        assert position not in self.admitted, "drawn twice"
        began = self.admitted[position] = self.version
        gone = sum(len(batch.drawn) for batch in self.batches) + len(self._ahead._replaced)
        self.most_under_way = max(self.most_under_way, len(self.admitted) - gone)
        await asyncio.sleep(self._rng.pareto(1.2))
        rewards = (1.0, 1.0) if np.random.default_rng(position).random() < self._uniform_share else (1.0, 0.0)
        ids, logprobs = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)
        spans = (VersionSpan(began, 0, 1),)
        completions = [Completion(position, sample, ids, logprobs, "stop", spans, 0) for sample in range(SAMPLES)]
        verdicts = [Verdict(Status.CORRECT, {}, reward) for reward in rewards]
        return Group(position, problem, tuple(completions), tuple(verdicts))

    def _draw(self, count: int) -> list[tuple[int, Problem]]:
        positions = self.progress.next_positions(count, self._next)
        self._next = max([self._next, *(position + 1 for position in positions)])
        return [(position, PROBLEM) for position in positions]

    async def steps(self, until: int, killed: bool) -> None:
        """Go on from `progress`; a killed attempt gives up in the middle of what it samples for the next step."""
        self._next, attempt = 0, start_attempt(self._folder, self.progress.step)
        self._ahead = GroupsAhead(
            self._sample, P, self._staleness, 1e9, most_replaced=self._most_replaced, draw=self._draw
        )
        for step in range(self.progress.step + 1, until + 1):
            left = (until + killed - step + 1) * P
            self._ahead.admit(self._draw(min(self._ahead.free, left - len(self._ahead))), step - 1)
            batch = await self._ahead.take(step)
            self.batches.append(batch)
            await asyncio.sleep(self._rng.random())
            self.version = step
            self._write(step, attempt, batch)
        await self._ahead.close()
        for position in self.admitted.keys() - {g.position for batch in self.batches for g in batch.drawn}:
            assert killed, "nothing is sampled that the steps do not need"
            del self.admitted[position]

    def _write(self, step: int, attempt: int, batch: Batch) -> None:
        for phase, groups in (("replaced", batch.replaced), ("train", batch.groups)):
            texts = [[""] * SAMPLES for _ in groups]
            self._record.write(step, attempt, groups, texts, None, phase)  # type: ignore[arg-type]
        used = self.progress.used(group.position for group in batch.drawn)
        self.progress = Progress(step, used.position, used.ahead)
        report = check_accounting(self._folder, P, SAMPLES, self._staleness)
        assert report.exact, report


def spread_of(group: Group) -> bool:
    return len(set(group.rewards())) > 1


@pytest.mark.parametrize("staleness", [0, 1, 2, 4])
@pytest.mark.parametrize("uniform_share", [0.3, 0.8, 1.0])
def test_bounds_and_accounting_hold_over_a_kill(tmp_path: Path, staleness: int, uniform_share: float) -> None:
    most = 2 * P
    simulation = Simulation(tmp_path, staleness, most, uniform_share, seed=staleness)

    async def scenario() -> None:
        await simulation.steps(8, killed=True)
        await simulation.steps(STEPS, killed=False)

    run(scenario())
    assert simulation.most_under_way <= (staleness + 1) * P
    trained = [group for batch in simulation.batches for group in batch.groups]
    replaced = [group for batch in simulation.batches for group in batch.replaced]
    for step, batch in enumerate(simulation.batches, start=1):
        assert len(batch.groups) == P and len(batch.replaced) <= most and not any(map(spread_of, batch.replaced))
        assert [g.position for g in batch.groups] == sorted(g.position for g in batch.groups)
        ages = [step - 1 - group.completions[0].versions[0].version for group in batch.groups]
        assert max(ages) <= staleness, (step, ages)
        if not all(map(spread_of, batch.groups)):
            assert len(batch.replaced) == most, "without spread only at the bound"
    assert sorted(group.position for group in trained + replaced) == list(range(len(trained) + len(replaced)))
    report = check_accounting(tmp_path, P, SAMPLES)
    assert report.exact and (report.steps, report.completions) == (STEPS, STEPS * P * SAMPLES)
    assert report.replaced == len(replaced) and 0 < len(replaced) <= STEPS * most


def test_a_slot_that_is_freed_while_the_learner_works_is_used_at_once() -> None:
    began: dict[int, float] = {}

    async def sample(position: int, problem: Problem) -> Group:
        began[position] = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0 if position < P else 3.0)
        rewards = (1.0, 1.0) if position == P + 1 else (1.0, 0.0)
        return Group(position, problem, (), tuple(Verdict(Status.CORRECT, {}, reward) for reward in rewards))

    async def scenario() -> list[list[int]]:
        fresh = iter(range(2 * P, 3 * P))
        ahead = GroupsAhead(
            sample, P, 1, 1e9, most_replaced=P, draw=lambda count: [(next(fresh), PROBLEM) for _ in range(count)]
        )
        ahead.admit([(position, PROBLEM) for position in range(2 * P)], 0)
        first = await ahead.take(1)
        await asyncio.sleep(10.0)
        second = await ahead.take(2)
        await ahead.close()
        return [[g.position for g in groups] for groups in (first.groups, second.groups, second.replaced)]

    assert run(scenario()) == [[0, 1, 2, 3], [4, 6, 7, 8], [5]]
    assert began[8] == pytest.approx(3.0), "not first when the learner has done its step, at 11.0"
