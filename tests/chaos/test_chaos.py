"""Kills at random in one run, nodes and the driver among them: nothing lost, nothing counted twice, and it learns."""

import logging
import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import ROOT, finish, start, steps_done, tail, wait_until
from simulated_cluster import SimulatedCluster, simulated_cluster

from launch.coverage import main as prove
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.stats import Interval, mean_interval

LOG = logging.getLogger(__name__)
"""Recovery times: `pytest tests/chaos/test_chaos.py --log-cli-level=INFO`."""

VICTIMS = ("EngineCore", "RolloutWorker", "rewards.child", "RewardPool", "LearnerRank", "node", "driver")
TWELVE, THIRTY = (3, 2, 2, 1, 2, 1, 1), (8, 7, 4, 3, 4, 2, 2)
PROBLEMS, COMPLETIONS, STALENESS = 16, 8, 1
CHANGES = {
    "run.steps": 1000,
    "rollout.problems_per_step": PROBLEMS,
    "rollout.completions_per_problem": COMPLETIONS,
    "rollout.staleness": STALENESS,
    "loss.correction": "truncated",
    "placement.num_rollout_gpus": 2,
    "placement.wait_s": 120,
    "push.deadline_s": 40,
    "checkpoint.every_steps": 10,
    "evaluation.problems": 8,
}
LEARNED = 40
"""Steps after which the accuracy has risen beyond its interval."""


def kill(victim: str, run: subprocess.Popen[bytes], cluster: SimulatedCluster, chance: random.Random) -> None:
    """SIGKILL to one of these, as it is found now; waits for one to be there."""
    if victim == "node":
        cluster.remove(chance.choice(cluster.nodes))
        cluster.add()
        return
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = psutil.Process(run.pid).children() if victim == "driver" else cluster.processes(victim)
        if found:
            chance.choice(found).kill()
            return
        time.sleep(0.2)
    raise AssertionError(f"no {victim} came back within 120 s")


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(TWELVE, marks=pytest.mark.slow, id="12"),
        pytest.param(THIRTY, marks=pytest.mark.nightly, id="30"),
    ],
)
@pytest.mark.cpu_engine
@pytest.mark.timeout(1500)
def test_random_kills(times: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, log, chance = tmp_path / "run", tmp_path / "log", random.Random(0)
    kills = dict(zip(VICTIMS, times, strict=True))
    victims = [victim for victim, count in kills.items() for _ in range(count)]
    chance.shuffle(victims)
    overrides = [part for name, value in CHANGES.items() for part in (f"--{name}", str(value))]
    recipe = ROOT / "launch" / "recipes" / "quickstart.yaml"
    command = [str(recipe), "--restart", "--run.folder", str(tmp_path), "--run.name", "run", *overrides]
    seconds_to_next_step: dict[str, list[float]] = defaultdict(list)
    with simulated_cluster() as cluster:
        for _ in range(3):
            cluster.add()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process = start(command, log, script="fake_gpus.py")
        wait_until(lambda: steps_done(run) >= 2, 300, process, log)
        for victim in victims:
            kill(victim, process, cluster, chance)
            began, before = time.monotonic(), steps_recorded(run)
            wait_until(lambda before=before: steps_recorded(run) > before, 240, process, log)  # type: ignore[misc]
            seconds_to_next_step[victim].append(time.monotonic() - began)
            time.sleep(chance.uniform(0, 4))
        enough = max(steps_done(run) + 5, LEARNED)
        wait_until(lambda: steps_done(run) >= enough, 400, process, log)
        os.killpg(process.pid, signal.SIGINT)
        assert finish(process, log) == 128 + signal.SIGINT, tail(log)
    for victim, seconds in seconds_to_next_step.items():
        middle = float(np.median(seconds))
        LOG.info(
            f"{victim}: next step after {middle:.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), {len(seconds)} kills"
        )
    assert len(read_attempts(run)) == 1 + kills["driver"]
    coverage = check_coverage(run, PROBLEMS, COMPLETIONS, STALENESS)
    assert coverage.exact and coverage.steps == steps_done(run), coverage
    assert prove([str(run)]) == 0
    before, after = accuracy(run, range(1, 6)), accuracy(run, range(coverage.steps - 4, coverage.steps + 1))
    LOG.info(f"accuracy of the first and the last 5 of {coverage.steps} steps: {before} -> {after}")
    assert after.low > before.high


def steps_recorded(run: Path) -> tuple[int, int]:
    """Attempt and step of the newest record, which also rises when a killed driver begins some steps earlier."""
    names = [path.stem.split("-") for path in (run / "completions").glob("train-*.parquet")]
    return max((int(parts[4]), int(parts[2])) for parts in names)


def accuracy(run: Path, steps: range) -> Interval:
    rows = current_rows(run, columns=["step", "position", "status"]).to_pylist()
    by_problem: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["step"] in steps:
            by_problem[row["position"]].append(float(row["status"] == "correct"))
    return mean_interval(np.array(list(by_problem.values())))
