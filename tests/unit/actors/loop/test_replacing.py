"""Groups without spread are replaced in whole steps of the loop: the bounds and exact accounting hold over kills."""

import asyncio
import itertools
from pathlib import Path

import pytest
from simulated_run import PROBLEMS, SimulatedRun
from system import SETTINGS, rollout_section
from virtual_time import PROBLEM, P, run

from actors.loop.batch import Batch
from actors.loop.collector import Sampling
from actors.loop.lookahead import Lookahead
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Group, Problem, Status, Verdict
from openrs_ray.run.completions import current_rows, read_groups
from openrs_ray.run.coverage import Witness, check_coverage, prove
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import StepSettings

SAMPLES, STEPS, TIMES = 4, 12, 2
MOST = TIMES * P


def rewards(group: Group) -> set[float]:
    return set(group.rewards())


def check_batches(batches: list[Batch], figures: list[dict[str, float]], staleness: int) -> None:
    """`batches`: those that count, of all steps from the first."""
    for step, (batch, figure) in enumerate(zip(batches, figures, strict=True), start=1):
        assert len(batch.groups) == P and len(batch.replaced) <= MOST
        assert all(len(rewards(group)) == 1 for group in batch.replaced)
        ages = [step - 1 - group.rollouts[0].versions[0].version for group in batch.groups]
        assert min(ages) >= 0 and max(ages) <= staleness, (step, ages)
        uniform = sum(len(rewards(group)) == 1 for group in batch.groups)
        assert uniform == 0 or len(batch.replaced) == MOST, "without spread only at the bound"
        assert figure["groups_with_spread"] == P - uniform and figure["replaced_groups"] == len(batch.replaced)
        assert figure["replaced_share"] == pytest.approx(len(batch.replaced) / (P + len(batch.replaced)))
        assert figure["sampled_tokens"] == (P + len(batch.replaced)) * SAMPLES
    used = [group.position for batch in batches for group in batch.drawn]
    assert sorted(used) == list(range(len(used)))


def check_record(folder: Path, batches: list[Batch], config: RunConfig) -> None:
    digests = text_digests(problem.text for problem in PROBLEMS)
    proof = prove(folder, config, RunProblems("", len(PROBLEMS), digests))
    assert proof.faults == {} and proof.rows == sum(len(batch.drawn) for batch in batches) * SAMPLES
    assert Witness.of(folder).due == STEPS
    report = check_coverage(folder, P, SAMPLES)
    assert report.exact and (report.steps, report.completions) == (STEPS, STEPS * P * SAMPLES)
    assert report.replaced == sum(len(batch.replaced) for batch in batches) > 0
    for step, batch in enumerate(batches, start=1):
        again = read_groups(folder, step, PROBLEMS)
        assert [(g.position, g.problem) for g in again] == [(g.position, g.problem) for g in batch.groups]


@pytest.mark.parametrize("uniform_share", [0.5, 1.0])
def test_a_synchronous_run_repeats_itself_after_a_kill(tmp_path: Path, uniform_share: float) -> None:
    async def attempt(name: str, progress: Progress, until: int) -> SimulatedRun:
        trainer = SimulatedRun(tmp_path / name, progress, uniform_share, replace_uniform_groups=TIMES)
        await trainer.steps(until)
        return trainer

    async def scenario() -> SimulatedRun:
        whole = await attempt("whole", Progress(), STEPS)
        saved = (await attempt("killed", Progress(), 5)).progress
        await attempt("killed", saved, 8)  # what came after the checkpoint is lost
        await attempt("killed", saved, STEPS)
        return whole

    whole = run(scenario())
    check_batches(whole.batches, whole.figures, 0)
    check_record(tmp_path / "whole", whole.batches, whole.config)
    check_record(tmp_path / "killed", whole.batches, whole.config)
    for phase in ("train", "replaced"):
        columns = ["step", "position", "sample", "token_ids", "reward", "advantage"]
        expected, found = (current_rows(tmp_path / name, phase, columns) for name in ("whole", "killed"))  # type: ignore[arg-type]
        assert found.equals(expected)


@pytest.mark.parametrize(("staleness", "in_flight"), [(1, None), (2, None), (4, None), (1, 3), (4, 7)])
@pytest.mark.parametrize("uniform_share", [0.3, 0.8, 1.0])
def test_an_asynchronous_run_keeps_its_bounds_over_a_kill(
    tmp_path: Path, staleness: int, in_flight: int | None, uniform_share: float
) -> None:
    most_under_way = 0

    class Watched(SimulatedRun):
        async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
            nonlocal most_under_way
            most_under_way = max(most_under_way, len(self.sampling) + self.learner.learned_from)
            return await super().group(position, problem, plan)

        async def steps(self, until: int) -> Progress:
            for step in range(self.progress.step + 1, until + 1):
                await super().steps(step)
                report = check_coverage(tmp_path, P, SAMPLES, staleness)
                assert report.exact, (step, report)
            return self.progress

    async def attempt(progress: Progress, until: int) -> Watched:
        rollout = {"staleness": staleness, "in_flight": in_flight, "replace_uniform_groups": TIMES}
        trainer = Watched(tmp_path, progress, uniform_share, STEPS, **rollout)
        await trainer.steps(until)
        await trainer.sampling.close()
        return trainer

    async def scenario() -> list[Watched]:
        first = await attempt(Progress(), 5)
        await attempt(first.progress, 7)  # what came after the checkpoint is lost
        return [first, await attempt(first.progress, STEPS)]

    first, last = run(scenario())
    assert most_under_way == (staleness + 1) * P
    check_batches(first.batches + last.batches, first.figures + last.figures, staleness)
    check_record(tmp_path, first.batches + last.batches, last.config)
    used = [group.position for batch in last.batches for group in batch.drawn]
    assert sorted(last.sampled) == sorted(used), "nothing is sampled that the last steps do not need"


def test_a_slot_that_is_freed_while_the_learner_works_is_used_at_once() -> None:
    began: dict[int, float] = {}

    async def sample(position: int, problem: Problem, settings: StepSettings) -> Group:
        began[position] = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0 if position < P else 3.0)
        rewards = (1.0, 1.0) if position == P + 1 else (1.0, 0.0)
        return Group(position, problem, (), tuple(Verdict(Status.CORRECT, {}, reward) for reward in rewards))

    async def scenario() -> list[list[int]]:
        drawn = ((position, PROBLEM) for position in itertools.count())
        ahead = Lookahead(sample, drawn, rollout_section(P, 1, replaced=1), 2, SETTINGS)
        first = await ahead.take(1)
        await asyncio.sleep(10.0)
        second = await ahead.take(2)
        await ahead.close()
        return [[g.position for g in groups] for groups in (first.groups, second.groups, second.replaced)]

    assert run(scenario()) == [[0, 1, 2, 3], [4, 6, 7, 8], [5]]
    assert began[8] == pytest.approx(3.0), "not first when the learner has done its step, at 11.0"
