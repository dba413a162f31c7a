"""The evaluation of a run's policy, with engines and learner replaced by timers."""

from pathlib import Path

import pytest
from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run

from actors.loop.push import PushReport
from openrs_ray.errors import RunError
from openrs_ray.run.progress import Progress


def test_tokens_of_another_policy_than_the_one_that_is_evaluated_end_the_run(tmp_path: Path) -> None:
    async def lose_the_push(version: int) -> PushReport:
        return PushReport(0.0, 0, None)

    attempt = SimulatedRun(tmp_path, Progress(), held_out=PROBLEMS, steps=1)
    attempt.learner.push = lose_the_push
    with pytest.raises(RunError, match="the evaluation of policy version 1 was given tokens that are 1 versions old"):
        run(attempt.loop.run())
    assert attempt.progress.step == 1 and attempt.progress.evaluated == 0, "that of the start model is right"
