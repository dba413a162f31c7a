"""A reset of the reference in whole steps of the loop: the policy is kept, and the learner is told from the next step on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run

from actors.learner.group import Update
from actors.loop.beginning import beginning
from openrs_ray.records import Group
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.steering.steering import Steering

STEPS = 7


def simulated(folder: Path, progress: Progress, every_steps: int, told: dict[int, int]) -> SimulatedRun:
    """All held-out answers are right from the start, so that no evaluation raises their accuracy."""
    evaluation, checkpoint = {"hold_out": 2, "every_steps": 2}, {"every_steps": every_steps}
    one = SimulatedRun(
        folder, progress, steps=STEPS, held_out=PROBLEMS[:2], evaluation=evaluation, checkpoint=checkpoint
    )
    loss = one.config.loss.model_copy(update={"kl_beta": 0.1, "reference_reset_after": 1})
    one.loop.config = one.config.model_copy(update={"loss": loss})
    one.loop.steering = Steering(one.loop.config, 1)
    train = one.learner.train

    async def trained(groups: Sequence[Group], step: int, settings: StepSettings) -> Update:
        told[step] = settings.reference_step
        update: Update = await train(groups, step, settings)
        return replace(update, metrics=update.metrics | {"kl": 0.01})

    one.learner.train = trained
    return one


@pytest.mark.parametrize("every_steps", [50, 2])
def test_each_stalled_evaluation_makes_its_step_the_reference(every_steps: int, tmp_path: Path) -> None:
    told: dict[int, int] = {}
    one = simulated(tmp_path / "run", Progress(), every_steps, told)
    progress = run(one.loop.run())
    assert told == {1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6}
    assert progress.changes.reference_step == 6, "not that of the last step, which nothing follows"
    assert {(2, "kept"), (4, "kept"), (6, "kept")} <= {*one.store.saves}
    saved = {one.step: one.trainer_state() for one in one.store.checkpoints() if one.complete}
    assert saved[6]["changes"]["reference_step"] == saved[6]["evaluated"] == 6, "a resume goes on with it"


class Killed(Exception):
    pass


def test_a_kill_before_the_evaluation_of_a_saved_step_loses_no_reset(tmp_path: Path) -> None:
    """The checkpoint of step 4 has neither the evaluation nor what follows from it."""
    folder, told = tmp_path / "run", dict[int, int]()
    first = simulated(folder, Progress(), 2, told)

    def die(step: int, folder: str) -> None:
        if step == 4:
            raise Killed

    first.loop.saving.committed = die
    with pytest.raises(Killed):
        run(first.loop.run())
    begun = beginning(folder, CheckpointStore(folder / "checkpoints"), 2)
    assert (begun.progress.step, begun.progress.evaluated, begun.progress.changes.reference_step) == (4, 2, 2)
    run(simulated(folder, begun.progress, 2, told).loop.run())
    assert told == {1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6}
