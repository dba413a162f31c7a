"""The loop goes on over a completion whose log-probabilities are not finite, and says where it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_run import SimulatedRun
from virtual_time import run

from actors.loop.collector import Sampling
from openrs_ray.algorithm.unusable import without_judgement
from openrs_ray.records import Group, Problem
from openrs_ray.run.completions import current_rows
from openrs_ray.run.progress import Progress


class BrokenEngines(SimulatedRun):
    """Engines that give NaN at position 2 for the only token of sample 1."""

    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        group = await super().group(position, problem, plan)
        if position != 2:
            return group
        broken = replace(group.rollouts[1], logprobs=np.array([np.nan], dtype=np.float32))
        rollouts = (group.rollouts[0], broken, *group.rollouts[2:])
        pairs = zip(rollouts, group.verdicts, strict=True)
        return replace(group, rollouts=rollouts, verdicts=tuple(without_judgement(*pair) for pair in pairs))


@pytest.mark.parametrize("staleness", [0, 1])
def test_the_step_and_the_place_are_said_and_the_run_goes_on(tmp_path: Path, staleness: int) -> None:
    async def scenario() -> SimulatedRun:
        trainer = BrokenEngines(tmp_path, Progress(), 0.0, staleness=staleness)
        await trainer.steps(3)
        return trainer

    trainer = run(scenario())
    (step,) = [s for s, batch in enumerate(trainer.batches, 1) if 2 in [group.position for group in batch.drawn]]
    index = next(group.problem.index for group in trainer.batches[step - 1].drawn if group.position == 2)
    assert trainer.said == [
        f"step {step}: 1 completions could not be judged and were left out of the loss, such as: the engine's log-probability of "
        "token 0 is nan",
        f"step {step}: in 1 completions the engine gave a log-probability that is not finite, so they are not judged: "
        f"problem {index} (position 2), sample 1, token 0",
    ]
    assert [figures["errors"] for figures in trainer.figures] == [float(s == step) for s in (1, 2, 3)]
    rows = current_rows(tmp_path, columns=["position", "sample", "reward", "advantage"]).to_pylist()
    assert [(row["position"], row["sample"]) for row in rows if row["advantage"] is None] == [(2, 1)]
