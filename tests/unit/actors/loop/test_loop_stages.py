"""A run goes through its stages in whole steps of the loop: the same over kills, as recorded, and provable."""

import dataclasses
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
from openrs_ray.records import Group, Problem
from openrs_ray.run.completion_files import current_files, write_file
from openrs_ray.run.completions import RESTED, SCHEMA, current_rows
from openrs_ray.run.coverage import Proof, prove, read_rested
from openrs_ray.run.decisions import read_decisions
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.progress import Progress

STEPS, SAMPLES = 18, 4
PROBLEMS = [Problem(n, f"{n}+1", tuple(range(1, 2 + n % 6)), (f"{n + 1}",)) for n in range(12)]
"""Prompts of 1 to 6 tokens."""
LENGTHS = [len(problem.prompt_ids) for problem in PROBLEMS]
STAGES: list[dict[str, Any]] = [
    {
        "max_completion_tokens": 8,
        "max_prompt_tokens": 3,
        "until": {"truncated_share_below": 0.1, "window": 2},
    },
    {"max_completion_tokens": 16, "max_prompt_tokens": 6, "temperature": 0.5, "until": {"step": 13}},
    {"max_completion_tokens": 24, "min_prompt_tokens": 2, "max_prompt_tokens": 4, "temperature": 0.7},
]


def fits(problem: int, stage: int) -> bool:
    return STAGES[stage].get("min_prompt_tokens", 0) <= LENGTHS[problem] <= STAGES[stage]["max_prompt_tokens"]


class Cut(SimulatedRun):
    """Completions of positions below 30 are cut, and one of two below 60."""

    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        group = await super().group(position, problem, plan)
        cut = position < 30 or (position < 60 and position % 2)
        rollouts = (
            dataclasses.replace(rollout, finish_reason="length" if cut else "stop") for rollout in group.rollouts
        )
        return dataclasses.replace(group, rollouts=tuple(rollouts))


def attempt(folder: Path, progress: Progress, stages: list[dict[str, Any]] = STAGES, **rollout: Any) -> Cut:
    lengths = {name: max(stage[name] for stage in stages) for name in ("max_completion_tokens", "max_prompt_tokens")}
    more = {**lengths, "stages": stages, "max_uniform_steps": 0} | rollout
    uniform = 0.3 if rollout.get("replace_uniform_groups") else 0.0
    return Cut(folder, progress, uniform, STEPS, problems=PROBLEMS, **more)


async def killed(folder: Path, at: tuple[tuple[int, int], ...], **rollout: Any) -> Any:
    """Attempts that reach a step and are killed; the next goes on from a checkpoint before it."""
    progress = Progress()
    for upto, saved in at:
        one = attempt(folder, progress, **rollout)
        progress = await one.steps(saved)
        progress = Progress.read(dataclasses.asdict(progress), folder)  # as a checkpoint has it
        await one.steps(upto)
        await one.sampling.close()
    last = attempt(folder, progress, **rollout)
    await last.steps(STEPS)
    await last.writer.written()
    await last.sampling.close()
    return last.config


def proof(folder: Path, config: Any) -> Proof:
    digests = text_digests(problem.text for problem in PROBLEMS)
    return prove(folder, config, RunProblems("", len(PROBLEMS), digests, prompt_tokens=tuple(LENGTHS)))


def witness() -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Stage, positions trained on and positions passed over of each step, where steps take turns."""
    order = Mixture(42, (Part("", 1.0, len(PROBLEMS)),))
    stage, position, shares = 0, 0, list[float]()
    stages, used, over = list[int](), list[list[int]](), list[list[int]]()
    for step in range(1, STEPS + 1):
        drawn, passed = list[int](), list[int]()
        while len(drawn) < P:
            (drawn if fits(order.index(position), stage) else passed).append(position)
            position += 1
        stages.append(stage)
        used.append(drawn)
        over.append(passed)
        shares.append(float(np.mean([p < 30 or (p < 60 and p % 2 == 1) for p in drawn])))
        if (stage == 0 and len(shares) > 1 and np.mean(shares[-2:]) < 0.1) or (stage == 1 and step >= 13):
            stage, shares = stage + 1, []
    return stages, used, over


def by_step(rows: list[dict[str, Any]]) -> list[list[int]]:
    return [sorted({row["position"] for row in rows if row["step"] == step}) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("at", [(), ((3, 2), (9, 8), (10, 9), (16, 12))])
def test_a_synchronous_run_changes_its_stage_as_its_witness_says_whenever_it_is_killed(
    tmp_path: Path, at: tuple[tuple[int, int], ...]
) -> None:
    config = run(killed(tmp_path, at))
    stages, used, over = witness()
    assert {*stages} == {0, 1, 2} and sum(map(len, over)) > 20, "all stages are met, and many positions passed over"
    rows = current_rows(tmp_path).to_pylist()
    assert by_step(rows) == used and by_step(read_rested(tmp_path)) == over
    settings = {
        step: (stage, STAGES[stage]["max_completion_tokens"], STAGES[stage].get("temperature", 1.0))
        for step, stage in enumerate(stages, 1)
    }
    assert {row["step"]: (row["stage"], row["max_completion_tokens"], row["temperature"]) for row in rows} == settings
    lines = read_metrics(tmp_path)
    names = ("setting/stage", "setting/max_completion_tokens", "setting/temperature")
    assert {line["step"]: tuple(line[name] for name in names) for line in lines} == settings
    found = proof(tmp_path, config)
    assert found.holds, (found.faults, found.coverage)
    assert found.coverage.unfit == sum(map(len, over)) and found.coverage.rested == 0


@pytest.mark.parametrize(
    ("staleness", "replaced", "in_flight"), [(1, 0, None), (1, 2, None), (3, 0, None), (3, 2, 5), (2, 0, 3)]
)
def test_a_run_ahead_accounts_for_each_position_over_changes_and_kills(
    tmp_path: Path, staleness: int, replaced: int, in_flight: int | None
) -> None:
    more = {"staleness": staleness, "replace_uniform_groups": replaced, "in_flight": in_flight}
    config = run(killed(tmp_path, ((5, 4), (12, 11), (14, 12)), **more))
    found = proof(tmp_path, config)
    assert found.holds, (found.faults, found.misplaced, found.coverage)
    assert found.coverage.unfit > 10
    rows = current_rows(tmp_path).to_pylist()
    lines = {line["step"]: line["setting/stage"] for line in read_metrics(tmp_path)}
    before = [row for row in rows if row["stage"] < lines[row["step"]]]
    assert before, "some completions of a stage are trained in the next one"
    for row in before:
        later = next(step for step in sorted(lines) if lines[step] > row["stage"])
        assert row["step"] < later + staleness, "none is older than allowed"
        assert row["temperature"] == STAGES[row["stage"]].get("temperature", 1.0), "as it was sampled"
    assert {row["stage"] for row in rows} == {*lines.values()} == {0, 1, 2}
    for row in rows:  # also where it waited for others at a change
        assert fits(row["problem_index"], row["stage"]), "drawn and sampled in one stage"


def test_decisions_are_on_the_disk_with_their_evidence_and_are_told(tmp_path: Path) -> None:
    async def whole() -> Cut:
        one = attempt(tmp_path, Progress())
        await one.steps(STEPS)
        await one.sampling.close()
        return one

    one = run(whole())
    first, second = read_decisions(tmp_path)
    stages = witness()[0]
    assert (first.step, second.step) == (stages.index(1), stages.index(2))
    assert first.evidence["condition"] == "truncated_share_below" and second.evidence["condition"] == "step"
    assert first.changes["temperature"] == (1.0, 0.5) and first.changes["max_prompt_tokens"] == (3, 6)
    assert one.told == [f"Stage: {first.sentence}", f"Stage: {second.sentence}"]
    assert first.sentence.startswith(
        f"stage 2 of 3 begins with step {stages.index(1) + 1}: completions of up to 16 tokens"
    )


def test_a_resume_with_fewer_stages_stays_in_the_last(tmp_path: Path) -> None:
    async def scenario() -> Any:
        one = attempt(tmp_path, Progress())
        progress = await one.steps(14)
        await one.sampling.close()
        two = attempt(tmp_path, progress, [{"max_completion_tokens": 24, "max_prompt_tokens": 6}])
        await two.steps(16)
        await two.sampling.close()
        return two.config

    config = run(scenario())
    assert proof(tmp_path, config).holds
    assert read_metrics(tmp_path)[-1]["setting/max_prompt_tokens"] == 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("stages") / "run"
    return folder, run(killed(folder, ()))


Rows = list[dict[str, Any]]
FITS = "positions passed over although their prompt fitted the stage"
FORGED: dict[str, tuple[str, Callable[[Rows], object], str]] = {
    "a limit that no step had": ("rested", lambda rows: rows[0].update(max_prompt_tokens=2), FITS),
    "no longer than its limit": ("rested", lambda rows: rows[0].update(max_prompt_tokens=6), FITS),
    "a least length that no step had": ("rested", lambda rows: rows[0].update(min_prompt_tokens=1), FITS),
    "another length": (
        "rested",
        lambda rows: rows[0].update(prompt_tokens=9),
        "positions passed over for a prompt of another length than the problem has",
    ),
    "another problem": (
        "rested",
        lambda rows: rows[0].update(problem_index=(rows[0]["problem_index"] + 1) % 12),
        "positions passed over under another problem than the order has",
    ),
    "another temperature": (
        "train",
        lambda rows: rows[0].update(temperature=0.9),
        "rows sampled with settings that no step had",
    ),
    "another stage": ("train", lambda rows: rows[0].update(stage=2), "rows sampled with settings that no step had"),
    "a longer limit": (
        "train",
        lambda rows: rows[0].update(max_completion_tokens=99),
        "rows sampled with settings that no step had",
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_row_is_found(tmp_path: Path, finished: tuple[Path, Any], forged: str) -> None:
    folder, config = finished
    phase, change, fault = FORGED[forged]
    file = next(iter(current_files(folder, phase)))  # type: ignore[arg-type]
    original, rows = file.path.read_bytes(), file.read().to_pylist()
    change(rows)
    file.path.unlink()
    schema = RESTED if phase == "rested" else SCHEMA
    written = write_file(folder, phase, file.step, file.attempt, pa.Table.from_pylist(rows, schema=schema))  # type: ignore[arg-type]
    try:
        found = proof(folder, config)
        assert fault in found.faults, found.faults
    finally:
        written.unlink()
        file.path.write_bytes(original)
    assert proof(folder, config).holds


def test_a_prompt_that_did_not_fit_its_stage_is_found(finished: tuple[Path, Any]) -> None:
    folder, config = finished
    digests = text_digests(problem.text for problem in PROBLEMS)
    longer = tuple(length + 3 for length in LENGTHS)
    found = prove(folder, config, RunProblems("", len(PROBLEMS), digests, prompt_tokens=longer))
    assert "positions used although their prompt did not fit the stage" in found.faults
