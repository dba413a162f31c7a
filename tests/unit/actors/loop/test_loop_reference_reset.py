"""A reset of the reference in whole steps of the loop: the policy is kept, and the learner is told from the next step on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run

from actors.learner.group import Update
from openrs_ray.records import Group
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.steering.steering import Steering

STEPS = 7


def test_each_stalled_evaluation_makes_its_step_the_reference(tmp_path: Path) -> None:
    """All held-out answers are right from the start, so that no evaluation raises their accuracy."""
    told: dict[int, int] = {}
    one = SimulatedRun(
        tmp_path / "run", Progress(), steps=STEPS, held_out=PROBLEMS[:2], evaluation={"hold_out": 2, "every_steps": 2}
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
    progress = run(one.loop.run())
    assert told == {1: 0, 2: 0, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6}
    assert progress.changes.reference_step == 6, "not that of the last step, which nothing follows"
    assert {(2, "kept"), (4, "kept"), (6, "kept")} <= {*one.store.saves}
    saved = {one.step: one.trainer_state() for one in one.store.checkpoints() if one.complete}
    assert saved[6]["changes"]["reference_step"] == 6, "a resume goes on with it"
