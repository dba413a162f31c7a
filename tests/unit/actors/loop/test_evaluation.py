"""The evaluation of a run's policy, with engines and learner replaced by timers."""

from pathlib import Path

import pytest
from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run

from actors.loop.push import PushReport
from openrs_ray.errors import RunError
from openrs_ray.run.budget import LimitReached
from openrs_ray.run.progress import Progress


def test_tokens_of_another_policy_than_the_one_that_is_evaluated_end_the_run(tmp_path: Path) -> None:
    async def lose_the_push(version: int) -> PushReport:
        return PushReport(0.0, 0, None)

    attempt = SimulatedRun(tmp_path, Progress(), held_out=PROBLEMS, steps=1)
    attempt.learner.push = lose_the_push
    with pytest.raises(RunError, match="the evaluation of policy version 1 was given tokens that are 1 versions old"):
        run(attempt.loop.run())
    assert attempt.progress.step == 1 and attempt.progress.evaluated == 0, "that of the start model is right"


@pytest.mark.parametrize(("last", "known"), [(3, False), (2, True)])
def test_a_limit_that_leaves_no_evaluation_shows_none_of_an_earlier_policy(
    last: int, known: bool, tmp_path: Path
) -> None:
    """Evaluated after steps 0 and 2; from step `last` on nothing more can be paid."""
    attempt = SimulatedRun(
        tmp_path, Progress(), held_out=PROBLEMS[:2], steps=9, evaluation={"hold_out": 2, "every_steps": 2}
    )

    def check(*works: str) -> float:
        done = attempt.progress.step
        if done > last or (done == last and attempt.progress.evaluated == 2):
            raise LimitReached("", "budget")
        return 1000.0

    attempt.budget.check = check  # type: ignore[method-assign]
    progress = run(attempt.loop.run())
    assert (progress.step, progress.ended, progress.evaluated) == (last, "budget", 2)
    assert progress.before is not None and (progress.after is not None) == known
