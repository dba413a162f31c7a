"""The loop and the collector record what a step waits for: the diagnosis names the side that was made slow."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import virtual_time
from simulated_run import SimulatedRun

from actors.loop.collector import Collector, Sampling
from actors.pools.messages import Judged, SampledItem
from actors.rollout.worker import Request
from launch.trace import diagnosis
from openrs_ray.data.completions import Texts
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.records import Completion, Group, Problem, Status, Verdict, VersionSpan
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import recording
from openrs_ray.run.trace import Step, read_trace, steps_of


class CollectedRun(SimulatedRun):
    """With the collector as it is, before an engine and a reward pool that take a while."""

    def __init__(self, folder: Path, sample_s: float, judge_s: float, **rollout: Any) -> None:
        super().__init__(folder, Progress(), steps=3, **rollout)
        self._sample_s, self._judge_s = sample_s, judge_s
        pool = SimpleNamespace(judge_rollouts=SimpleNamespace(remote=self._judge))
        engines: Any = SimpleNamespace(sample=self._sample)
        self._collector = Collector(self.config, engines, pool, {"": SingleTurn()}, pytest.fail)

    async def _sample(self, request: Request) -> Completion:
        await asyncio.sleep(self._sample_s)
        version = self.learner.version
        ids, logprobs = np.array([request.sample], dtype=np.int32), np.zeros(1, dtype=np.float32)
        return Completion(request.position, request.sample, ids, logprobs, "stop", (VersionSpan(version, 0, 1),), 0)

    async def _judge(self, items: Sequence[SampledItem]) -> list[Judged]:
        await asyncio.sleep(self._judge_s)
        return [Judged(Verdict(Status.CORRECT, {"accuracy": 1.0}, 1.0), Texts("", "")) for _ in items]

    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        return await self._collector.group(position, problem, plan)


def steps(folder: Path, sample_s: float, judge_s: float, staleness: int) -> list[Step]:
    """Those of a run on a clock that jumps, on which the spans are as well."""
    run = CollectedRun(folder, sample_s, judge_s, staleness=staleness)
    run.store.open()
    trace = folder / "attempts" / "001" / "trace"
    trace.parent.mkdir(parents=True)
    with recording(trace, "driver"):
        virtual_time.run(run.loop.run())
    return steps_of(read_trace(folder))


LOOKS = itertools.count()


def virtual_ns() -> int:
    """Each look at the clock takes a microsecond: no two spans begin at once."""
    return round(asyncio.get_running_loop().time() * 1e9) + 1000 * next(LOOKS)


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize(
    ("sample_s", "judge_s", "said"),
    [(1.5, 0.1, "Sampling bounds the step"), (0.1, 1.5, "The reward pool bounds the step")],
)
def test_the_slow_side_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_s: float, judge_s: float, said: str, staleness: int
) -> None:
    monkeypatch.setattr("time.time_ns", virtual_ns)
    monkeypatch.setattr("time.perf_counter_ns", virtual_ns)
    found = steps(tmp_path / "run", sample_s, judge_s, staleness)
    assert [step.number for step in found] == [1, 2, 3]
    # Sampling ahead, the groups of the later steps are there already: only the first step waits.
    assert diagnosis(found[:1] if staleness else found).startswith(said)
    first = found[0].causes()
    assert first["completions"] == pytest.approx(sample_s, abs=0.3) and first["verdicts"] == pytest.approx(
        judge_s, abs=0.3
    )
    assert all(step.positions for step in found)
    for step in found:
        waits = step.stage("take") + step.stage("write") + step.stage("save")
        assert waits <= step.seconds and sum(step.causes().values()) == pytest.approx(step.seconds, rel=1e-6)
