"""Problems at rest are passed over in whole steps of the loop: as a witness says, over kills, and exactly accounted."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from simulated_run import SimulatedRun
from virtual_time import P, run

from actors.loop.collector import Sampling
from openrs_ray.data.order import Mixture, Part
from openrs_ray.records import Group, Problem, Status, Verdict
from openrs_ray.run.completion_files import current_files, write_file
from openrs_ray.run.completions import RESTED, current_rows
from openrs_ray.run.coverage import Proof, check_coverage, prove, read_rested
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.progress import Progress

SAMPLES, STEPS = 4, 24
SIZES = {"sums": 8, "products": 3}
RULES = {"sums": (2, 2), "products": (1, 1)}
"""Visits of one outcome, and epochs of rest."""
PROBLEMS = [
    Problem(index, f"{index}+1", (1, 2), (f"{index + 1}",), "sums" if index < 8 else "products") for index in range(11)
]
DATA: list[dict[str, Any]] = [
    {"path": "sums.jsonl", "weight": 3, "rest_after": 2, "rest_for": 2},
    {"path": "products.jsonl", "weight": 1, "rest_after": 1, "rest_for": 1},
]


def solved(position: int) -> int:
    """How many of the samples are right; a third of the visits each always, never, in part."""
    return (0, SAMPLES, 2)[int(np.random.default_rng([position, 9]).integers(3))]


class Pools(SimulatedRun):
    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        group = await super().group(position, problem, plan)
        right = range(solved(position))
        verdicts = (
            Verdict(Status.CORRECT if n in right else Status.WRONG, {}, float(n in right)) for n in range(SAMPLES)
        )
        return dataclasses.replace(group, verdicts=tuple(verdicts))


def attempt(folder: Path, progress: Progress, **rollout: Any) -> Pools:
    return Pools(folder, progress, 0.0, STEPS, data=DATA, problems=PROBLEMS, max_uniform_steps=0, **rollout)


def proof(folder: Path, config: Any) -> Proof:
    digests = text_digests(problem.text for problem in PROBLEMS)
    return prove(folder, config, RunProblems("", len(PROBLEMS), digests, tasks=SIZES))


def mixture() -> Mixture:
    return Mixture(42, (Part("sums", 3.0, 8), Part("products", 1.0, 3)))


def witness(steps: int) -> tuple[list[list[int]], list[list[tuple[int, str]]]]:
    """Positions that each step trains on and passes over, from whole histories, where steps take turns."""
    order, history = mixture(), defaultdict(list)
    used, over, position = [], [], 0
    for _ in range(steps):
        drawn, passed = list[int](), list[tuple[int, str]]()
        while len(drawn) < P:
            place = order.place(position)
            visits, epochs = RULES[place.task]
            last = history[place.problem][-visits:]
            kinds = {kind for _, kind in last}
            resting = len(last) == visits and kinds in ({"always"}, {"never"}) and place.epoch <= last[-1][0] + epochs
            if resting:
                passed.append((position, kinds.pop()))
            else:
                drawn.append(position)
            position += 1
        for at in drawn:
            kind = {0: "never", SAMPLES: "always"}.get(solved(at), "in part")
            history[order.place(at).problem].append((order.place(at).epoch, kind))
        used.append(drawn)
        over.append(passed)
    return used, over


def by_step(folder: Path) -> tuple[list[list[int]], list[list[tuple[int, str]]]]:
    trained, rested = defaultdict(set), defaultdict(list)
    for row in current_rows(folder, "train", ["step", "position"]).to_pylist():
        trained[row["step"]].add(row["position"])
    for row in read_rested(folder):
        rested[row["step"]].append((row["position"], row["solved"]))
    steps = range(1, STEPS + 1)
    return [sorted(trained[step]) for step in steps], [sorted(rested[step]) for step in steps]


async def whole(folder: Path, **rollout: Any) -> Pools:
    one = attempt(folder, Progress(), **rollout)
    await one.steps(STEPS)
    await one.sampling.close()
    return one


def test_a_synchronous_run_rests_as_its_witness_says_whenever_it_is_killed(tmp_path: Path) -> None:
    async def killed() -> None:
        progress = Progress()
        for upto, saved in ((3, 2), (7, 7), (13, 9), (14, 14)):
            one = attempt(tmp_path / "killed", progress)
            progress = await one.steps(saved)
            # As a checkpoint has it.
            progress = Progress.read(dataclasses.asdict(progress), tmp_path)
            await one.steps(upto)
            await one.sampling.close()
        last = attempt(tmp_path / "killed", progress)
        await last.steps(STEPS)

    async def scenario() -> Pools:
        await killed()
        return await whole(tmp_path / "whole")

    config = run(scenario()).config
    expected = witness(STEPS)
    assert sum(map(len, expected[1])) > 20, "enough are passed over to mean anything"
    assert by_step(tmp_path / "whole") == expected
    assert by_step(tmp_path / "killed") == expected
    for name in ("whole", "killed"):
        found = proof(tmp_path / name, config)
        assert found.holds, (found.faults, found.coverage)
        assert found.coverage.rested == sum(map(len, expected[1]))
        last = max(
            position for part in (expected[0], [[p for p, _ in o] for o in expected[1]]) for s in part for position in s
        )
        assert [group.position for group in found.groups] == list(range(last + 1)), "none is lost, none used twice"


def test_with_replaced_groups_a_kill_changes_no_draw_either(tmp_path: Path) -> None:
    async def scenario() -> Any:
        await whole(tmp_path / "whole", replace_uniform_groups=2)
        first = attempt(tmp_path / "killed", Progress(), replace_uniform_groups=2)
        saved = await first.steps(8)
        await first.steps(10)
        await first.sampling.close()
        last = attempt(tmp_path / "killed", saved, replace_uniform_groups=2)
        await last.steps(STEPS)
        return last.config

    config = run(scenario())
    assert by_step(tmp_path / "killed") == by_step(tmp_path / "whole")
    found = proof(tmp_path / "killed", config)
    assert found.holds and found.coverage.replaced > 10 and found.coverage.rested > 10, found


@pytest.mark.parametrize("staleness", [1, 3])
@pytest.mark.parametrize("replaced", [0, 2])
def test_a_run_ahead_accounts_for_each_position_over_a_kill(tmp_path: Path, staleness: int, replaced: int) -> None:
    rollout = {"staleness": staleness, "replace_uniform_groups": replaced}

    async def scenario() -> Any:
        first = attempt(tmp_path, Progress(), **rollout)
        for step in range(1, 10):
            saved = await first.steps(step)
            report = check_coverage(tmp_path, P, SAMPLES, staleness)
            assert report.exact, (step, report)
        await first.steps(11)  # what came after the checkpoint is lost
        await first.sampling.close()
        second = attempt(tmp_path, saved, **rollout)
        for step in range(10, STEPS + 1):
            await second.steps(step)
            report = check_coverage(tmp_path, P, SAMPLES, staleness)
            assert report.exact, (step, report)
        await second.sampling.close()
        return second.config

    found = proof(tmp_path, run(scenario()))
    assert found.holds, (found.faults, found.misplaced, found.coverage)
    assert found.coverage.rested > 10
    assert found.coverage.replaced == sum(group.phase == "replaced" for group in found.groups)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("rests") / "run"
    return folder, run(whole(folder)).config


Rows = list[dict[str, Any]]
FORGED: dict[str, tuple[Callable[[Rows], object], str]] = {
    "solved otherwise": (
        lambda rows: rows[0].update(solved="always" if rows[0]["solved"] == "never" else "never"),
        "positions passed over although their problem was not at rest",
    ),
    "fewer visits": (
        lambda rows: rows[0].update(visits=7),
        "positions passed over although their problem was not at rest",
    ),
    "of another problem": (
        lambda rows: rows[0].update(problem_index=(rows[0]["problem_index"] + 1) % 8),
        "positions passed over under another problem than the order has",
    ),
    "known too early": (
        lambda rows: rows[0].update(after_step=rows[0]["step"]),
        "positions passed over by results that were not due",
    ),
}


@pytest.mark.parametrize("fault", FORGED)
def test_a_forged_rest_is_found(finished: tuple[Path, Any], tmp_path: Path, fault: str) -> None:
    folder, config = copied(finished, tmp_path)
    change, kind = FORGED[fault]
    file = next(iter(current_files(folder, "rested")))
    rows = file.read().to_pylist()
    change(rows)
    file.path.unlink()
    write_file(folder, "rested", file.step, file.attempt, pa.Table.from_pylist(rows, schema=RESTED))
    assert kind in proof(folder, config).faults


def test_a_rest_that_is_not_recorded_is_a_lost_position(finished: tuple[Path, Any], tmp_path: Path) -> None:
    folder, config = copied(finished, tmp_path)
    file = next(iter(current_files(folder, "rested")))
    positions = [row["position"] for row in file.read().to_pylist()]
    file.path.unlink()
    assert {*positions} & {*proof(folder, config).coverage.lost}


def test_using_a_problem_at_rest_is_found(finished: tuple[Path, Any], tmp_path: Path) -> None:
    """The same record under a rule by which more would have been at rest."""
    folder, config = copied(finished, tmp_path)
    longer = [DATA[0] | {"rest_for": 3}, DATA[1]]
    config = type(config).model_validate(config.model_dump(mode="json") | {"data": longer})
    assert "positions used although their problem was at rest" in proof(folder, config).faults


def copied(finished: tuple[Path, Any], tmp_path: Path) -> tuple[Path, Any]:
    import shutil

    folder, config = finished
    return Path(shutil.copytree(folder, tmp_path / "run")), config


def test_the_figures_of_each_task_are_logged(finished: tuple[Path, Any]) -> None:
    from openrs_ray.run.metrics import read_metrics

    folder, _ = finished
    rows = current_rows(folder, "train").to_pylist()
    for line in read_metrics(folder):
        of_step = [row for row in rows if row["step"] == line["step"]]
        for task, count in Counter(row["task"] for row in of_step).items():
            right = [row["status"] == "correct" for row in of_step if row["task"] == task]
            assert line[f"task/{task}/accuracy"] == pytest.approx(sum(right) / count)
            assert line[f"task/{task}/groups"] == count / SAMPLES
        over = Counter(row["task"] for row in read_rested(folder) if row["step"] == line["step"])
        assert line["rested"] == over.total() and line.get("task/sums/rested", 0) == over["sums"]


def test_when_all_are_at_rest_the_longest_resting_are_drawn_again(tmp_path: Path) -> None:
    class Solved(Pools):
        async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
            group = await super().group(position, problem, plan)
            return dataclasses.replace(group, verdicts=(Verdict(Status.CORRECT, {}, 1.0),) * SAMPLES)

    async def scenario() -> Pools:
        one = Solved(tmp_path, Progress(), 0.0, STEPS, data=DATA, problems=PROBLEMS, max_uniform_steps=0)
        await one.steps(STEPS)
        return one

    one = run(scenario())
    assert proof(tmp_path, one.config).holds
    assert sum("each problem of task sums was solved always or never" in said for said in one.said) == 1
    uses = Counter(group.problem.index for batch in one.batches for group in batch.groups)
    assert max(uses[n] for n in range(8)) - min(uses[n] for n in range(8)) <= 1, "none rests for ever"
