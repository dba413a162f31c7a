"""Nodes with rollout workers that come and go while a run is under way."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import finish, start, steps_done, tail, wait_until, write_recipe
from simulated_cluster import simulated_cluster

from openrs_ray.run.coverage import check_coverage

pytestmark = [pytest.mark.slow, pytest.mark.cpu_engine, pytest.mark.timeout(900)]


def _workers_of_last_step(run: Path) -> set[int]:
    """From the last step's file alone: reading the whole record at each look would take a core from the run."""
    last = max((run / "completions").glob("train-step-*.parquet"), default=None)
    return set() if last is None else set(pq.read_table(last, columns=["worker"])["worker"].to_pylist())


def test_a_node_that_joins_is_used_and_one_that_goes_is_done_without(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "placement": {"max_rollout_gpus": 2},
        "checkpoint": {"every_steps": 500},
        "push": {"deadline_s": 30},
        "rollout": {"staleness": 1},
        "learner": {"learning_rate": 1e-5},  # hundreds of steps may pass, and versions must not drift apart
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 2000, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    with simulated_cluster() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process = start([str(recipe), "--placement.wait_s", "120"], log, script="fake_gpus.py")

        def until(condition: Callable[[], bool]) -> None:
            wait_until(condition, 180, process, log)

        def served_by(workers: set[int]) -> Callable[[], bool]:
            return lambda: _workers_of_last_step(run) == workers

        cluster.add()
        cluster.add()
        until(served_by({0}))
        first = cluster.node_of("RolloutWorker")
        second = cluster.add()
        until(served_by({0, 1}))
        assert "The cluster has room for rollout worker 1" in log.read_text()
        cluster.remove(second)
        until(served_by({0}))
        cluster.add()
        until(served_by({0, 1}))
        cluster.remove(first)
        until(served_by({1}))
        cluster.add()
        until(served_by({0, 1}))
        os.killpg(process.pid, signal.SIGINT)
        assert finish(process, log) == 128 + signal.SIGINT, tail(log)
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4, staleness=1)
    assert coverage.exact and coverage.steps == steps_done(run), coverage
