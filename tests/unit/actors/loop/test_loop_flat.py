"""A run whose next dollar buys too little ends by itself, says why, and goes on when it is asked for less."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run

from openrs_ray.run.decisions import read_decisions
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress, read_result

EVALUATION: Any = {"path": "toy-heldout", "every_steps": 2}


def simulated(folder: Path, progress: Progress, least: float | None) -> SimulatedRun:
    """All its answers are right from the start, at a dollar for each GPU and second."""
    cost: Any = {"price_per_gpu_hour": 3600.0, "min_points_per_usd": least, "evaluations_per_slope": 3}
    clock = asyncio.get_running_loop().time
    return SimulatedRun(folder, progress, steps=12, cost=cost, clock=clock, held_out=PROBLEMS, evaluation=EVALUATION)


def test_a_flat_run_ends_after_its_evaluations_and_goes_on_for_less(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    async def first_alone() -> SimulatedRun:
        attempt = simulated(folder, Progress(), 1e5)
        await attempt.loop.run()
        return attempt

    first = run(first_alone())
    progress, result = first.progress, read_result(folder)
    assert (progress.step, progress.ended, progress.evaluated) == (4, "flat", 4), (
        "the third evaluation is the first check"
    )
    assert progress.after is not None and progress.after.mean == 1.0
    assert first.store.saves[-1] == (4, "kept")
    assert result is not None and result.why == progress.why and "cost.min_points_per_usd 100000" in result.why
    assert json.loads((folder / "result.json").read_text())["ended"] == "flat"
    (decision,) = read_decisions(folder)
    assert (decision.by, decision.step, decision.sentence) == ("stop", 4, progress.why)
    assert decision.evidence["evaluations"] == 3 and decision.evidence["interval"]["mean"] == pytest.approx(0, abs=1e-9)
    dollars = [line["cost_usd"] for line in read_metrics(folder, "evaluation")]
    assert dollars == sorted(dollars) and decision.evidence["dollars"] == pytest.approx(dollars[-1] - dollars[0])

    async def again() -> SimulatedRun:
        saved = json.loads((folder / "checkpoints" / "step-000004" / "trainer.json").read_text())
        attempt = simulated(folder, Progress.read(saved, folder), 1e-6)
        await attempt.loop.run()
        return attempt

    second = run(again())
    assert (second.progress.step, second.progress.ended, second.progress.why) == (12, "steps", "")


def test_nothing_is_checked_where_nothing_is_asked(tmp_path: Path) -> None:
    async def scenario() -> Progress:
        return await simulated(tmp_path / "run", Progress(), None).loop.run()

    progress = run(scenario())
    assert progress.ended == "steps" and progress.step == 12 and not read_decisions(tmp_path / "run")
