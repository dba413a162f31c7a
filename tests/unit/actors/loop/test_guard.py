"""A run that is made to go wrong: warned of, rolled back, gone on with another setting; with kills in between."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_run import SimulatedRun

from actors.learner.group import Update
from actors.loop.beginning import beginning
from actors.loop.guard import RolledBack
from openrs_ray.errors import Recurring
from openrs_ray.records import Group
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.budget import Budget, LimitReached
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.decisions import Decision, read_decisions
from openrs_ray.run.ledger import read_ledger
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress, read_result
from openrs_ray.run.step_settings import Changes, StepSettings

STEPS, TURN = 40, 25
GUARD = {"action": "roll_back", "baseline_steps": 5, "entropy_rise": {"window": 2, "patience": 2}}


async def attempt(folder: Path, healthy_below: float, until: int = STEPS, **guard: Any) -> SimulatedRun:
    """One attempt as the driver makes it. From step TURN on its entropy rises, unless the learning rate is below a factor."""
    begun = beginning(folder, CheckpointStore(folder / "checkpoints"), 0)
    checkpoint = {"every_steps": 5}
    run = SimulatedRun(
        folder,
        begun.progress,
        steps=until,
        problems_per_step=2,
        completions_per_problem=2,
        guard=GUARD | guard,
        checkpoint=checkpoint,
    )
    run.seconds = lambda plan: 0.0  # type: ignore[method-assign]
    rates.clear()

    async def train(groups: Sequence[Group], step: int, settings: StepSettings) -> Update:
        rates.append(settings.learning_rate_factor)
        wild = step >= TURN and settings.learning_rate_factor >= healthy_below
        figures = {"clipped_share": 0.0, "mismatch_kl": 0.0, "kl": 0.0, "entropy": 3.0 if wild else 0.4}
        return Update(figures, np.zeros((len(groups), len(groups[0].rollouts))))

    run.learner.train = train
    try:
        await run.loop.run()
    finally:
        await run.sampling.close()
        await run.writer.close()
    return run


rates: list[float] = []
"""Learning rate factors of the last attempt's steps."""


def actions(folder: Path) -> list[tuple[str, int | None]]:
    return [(decision.action, decision.to_step) for decision in read_decisions(folder)]


def go(folder: Path, healthy_below: float, **guard: Any) -> SimulatedRun:
    return asyncio.run(attempt(folder, healthy_below, **guard))


def test_a_rollback_ends_the_attempt_and_the_next_one_goes_on_from_the_good_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(
        RolledBack, match=r"^the entropy was 3 over steps 25 to 26, above 1\.2 \(first steps: 0\.4\): the run"
    ):
        go(folder, healthy_below=0.6)
    # Step 25 alone makes a mean of 1.7; 26 is the second in a row. The checkpoint of 25 is in doubt.
    assert actions(folder) == [("warn", None), ("roll back", 20)]
    store = CheckpointStore(folder / "checkpoints")
    assert store.checkpoints()[-1].step == 25 and read_metrics(folder)[-1]["step"] == 26

    run = go(folder, healthy_below=0.6)
    assert rates == [0.5] * 20 and run.said == [], "from step 21 on, at half the rate, and healthy"
    assert read_attempts(folder) == {1: 0, 2: 20} and len(read_decisions(folder)) == 2
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [*range(1, STEPS + 1)]
    assert [line["entropy"] for line in lines] == [0.4] * STEPS, "what was superseded does not count"
    assert [line["setting/learning_rate_factor"] for line in lines] == [1.0] * 20 + [0.5] * 20
    coverage = check_coverage(folder, 2, 2, due=STEPS)
    assert coverage.exact and coverage.steps == STEPS
    assert {one.step for one in store.checkpoints() if one.complete} == {30, 35, 40}, (
        "the last two, and the confirmed one"
    )


def test_a_kill_between_the_decision_and_the_next_attempt_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RolledBack):
        go(folder, healthy_below=0.6)
    shutil.copytree(folder, tmp_path / "copy")
    for _ in range(2):  # killed while the actors start, twice
        assert beginning(folder, CheckpointStore(folder / "checkpoints"), 0).progress.step == 20
    assert [one.step for one in CheckpointStore(folder / "checkpoints").checkpoints()] == [5, 10, 15, 20]
    noted = read_ledger(folder).entries[-1]  # type: ignore[union-attr]
    manifest = (folder / "checkpoints" / "manifest.json").read_bytes()
    assert noted.about == "start" and noted.files["checkpoints/manifest.json"] == sha256(manifest).hexdigest()
    asyncio.run(attempt(folder, 0.6, until=23))  # killed before its first checkpoint of its own
    begun = beginning(folder, CheckpointStore(folder / "checkpoints"), 0)
    assert begun.progress.changes == Changes(learning_rate_factor=0.5), "it holds in the attempts after that, too"
    go(folder, healthy_below=0.6)
    assert actions(folder) == [("warn", None), ("roll back", 20)] and check_coverage(folder, 2, 2, due=STEPS).exact


def test_what_is_not_mended_goes_back_again_and_at_last_stops(tmp_path: Path) -> None:
    folder, ends = tmp_path / "run", 0
    while True:
        try:
            go(folder, healthy_below=0.0, max_rollbacks=2)
        except RolledBack:
            ends += 1
        except Recurring as error:
            assert "the guard stops run run after step 26" in str(error) and "the run has gone back 2 times" in str(
                error
            )
            break
    assert ends == 2 and rates == [0.25] * 6
    assert [action for action, _ in actions(folder)] == ["warn", "roll back"] * 2 + ["warn", "stop"]
    with pytest.raises(Recurring):  # a resume without another setting ends in the same way
        go(folder, healthy_below=0.0, max_rollbacks=2)
    with pytest.raises(RolledBack):  # with one more allowed, it goes back once more
        go(folder, healthy_below=0.2, max_rollbacks=3)
    assert go(folder, healthy_below=0.2, max_rollbacks=3).progress.step == STEPS


def test_a_checkpoint_before_a_long_window_stays_complete(tmp_path: Path) -> None:
    """Each alarm comes after 25 steps at the latest: longer than checkpoint.keep_last reaches back."""
    folder, wide = tmp_path / "run", {"window": 15, "patience": 10, "limit": 1.5}
    with pytest.raises(RolledBack, match="goes back to the checkpoint of step 5,"):
        go(folder, healthy_below=0.6, entropy_rise=wide)
    assert beginning(folder, CheckpointStore(folder / "checkpoints"), 0).progress.step == 5


def test_a_fall_of_the_held_out_figures_goes_back_to_the_best_evaluation(tmp_path: Path) -> None:
    """Evaluations at 0, 15 and 35; a checkpoint every five steps, of which keep_last keeps two."""
    run = SimulatedRun(tmp_path / "run", Progress(), steps=STEPS, guard=GUARD, checkpoint={"every_steps": 5})
    for step in range(1, 36):
        run.guard.seen(step, {"entropy": 0.4})
        if step % 5 == 0:
            run.store.begin(step)
            run.store.commit(step, "kept", {"step": step})
        if step == 15:
            run.guard.seen(0, {"accuracy": 0.5, "low": 0.4, "high": 0.6}, "evaluation")
            run.guard.seen(step, {"accuracy": 0.8, "low": 0.7, "high": 0.9}, "evaluation")
    run.guard.seen(35, {"accuracy": 0.2, "low": 0.1, "high": 0.3}, "evaluation")
    with pytest.raises(RolledBack, match="goes back to the checkpoint of step 15,"):
        asyncio.run(run.guard.act(Progress(step=35)))


def test_where_every_checkpoint_is_in_doubt_the_run_begins_anew(tmp_path: Path) -> None:
    """A window so long that all checkpoints are within it."""
    folder, wide = tmp_path / "run", {"window": 20, "patience": 10, "limit": 1.3}
    with pytest.raises(RolledBack, match="goes back to the start model"):
        go(folder, healthy_below=0.6, entropy_rise=wide, until=STEPS)
    assert beginning(folder, CheckpointStore(folder / "checkpoints"), 7).progress == Progress(
        held_out=7, changes=Changes(learning_rate_factor=0.5)
    )
    assert CheckpointStore(folder / "checkpoints").checkpoints() == []


def test_a_warning_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = go(folder, healthy_below=0.0, action="warn")
    assert (
        actions(folder) == [("warn", None)] and len(run.said) == 1 and run.said[0].startswith("guard: the entropy was")
    )
    assert read_attempts(folder) == {1: 0} and run.progress.step == STEPS


def test_a_resume_counts_on_where_the_last_attempt_was_killed(tmp_path: Path) -> None:
    """The window and the row of the attempt before, of which the second step beyond the limit is still to come."""
    folder = tmp_path / "run"
    asyncio.run(attempt(folder, 0.6, until=25))
    assert actions(folder) == [("warn", None)]
    with pytest.raises(RolledBack, match="over steps 25 to 26"):
        go(folder, healthy_below=0.6)
    assert actions(folder) == [("warn", None), ("roll back", 20)], "warned of once"


def test_the_evidence_is_in_the_file_as_plain_json(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RolledBack):
        go(folder, healthy_below=0.6)
    line = json.loads((folder / "decisions.jsonl").read_text().splitlines()[-1])
    assert line["by"] == "guard" and line["changes"] == {"learning_rate_factor": [1.0, 0.5]} and line["step"] == 26
    assert line["evidence"] | {"value": 3.0, "bound": pytest.approx(1.2), "rule": "entropy_rise"} == line["evidence"]
    assert isinstance(read_decisions(folder)[-1], Decision)


def test_damaged_checkpoints_that_a_rollback_would_go_back_to_stay_on_the_disk(tmp_path: Path) -> None:
    """Twice, since a resume that found none would begin anew."""
    folder = tmp_path / "run"
    with pytest.raises(RolledBack):
        go(folder, healthy_below=0.6)
    store = CheckpointStore(folder / "checkpoints")
    before = store.checkpoints()
    for checkpoint in before:
        (checkpoint.folder / "trainer.json").write_text("{}")
    for _ in range(2):
        begun = beginning(folder, store, 0)
        assert begun.checkpoint is None and begun.damages
        assert store.checkpoints() == before


def test_a_rollback_that_cannot_be_paid_ends_the_run_in_order_and_is_due_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left for another start."""
    folder = tmp_path / "run"

    def check(self: Budget, *works: str) -> float:
        if "start" in works:
            raise LimitReached("", "budget")
        return 1000.0

    with monkeypatch.context() as poor:
        poor.setattr(Budget, "check", check)
        run = go(folder, healthy_below=0.6)
    result = read_result(folder)
    assert result is not None and (result.step, result.ended) == (26, "budget")
    assert actions(folder) == [("warn", None)] and run.store.saves[-1] == (26, "kept")
    assert "goes back to the checkpoint of step 20" in run.said[-1] and "would cost more than is left" in run.said[-1]
    with pytest.raises(RolledBack):  # with more money
        go(folder, healthy_below=0.6)
    assert actions(folder)[-1] == ("roll back", 20)


def test_a_fall_of_the_held_out_figures_that_could_not_be_paid_is_due_at_once_after_a_resume(tmp_path: Path) -> None:
    """The evaluation is not made again, since it is done; no later one may come."""
    folder, checkpoint = tmp_path / "run", {"every_steps": 5}
    first = SimulatedRun(folder, Progress(), steps=STEPS, guard=GUARD, checkpoint=checkpoint)
    for step, accuracy in ((15, 0.8), (35, 0.2)):
        ends = {"low": accuracy - 0.1, "high": accuracy + 0.1}
        first.metrics.write(step, {"accuracy": accuracy, **ends}, "evaluation")
        first.store.begin(step)
        first.store.commit(step, "kept", {"step": step, "evaluated": step})
    again = SimulatedRun(folder, Progress(step=35, evaluated=35), steps=STEPS, guard=GUARD, checkpoint=checkpoint)
    with pytest.raises(RolledBack, match="goes back to the checkpoint of step 15,"):
        asyncio.run(again.guard.act(again.progress))
    later = SimulatedRun(folder, Progress(step=15, evaluated=15), steps=STEPS, guard=GUARD, checkpoint=checkpoint)
    asyncio.run(later.guard.act(later.progress))
    assert actions(folder) == [("warn", None), ("roll back", 15)], "and once"
