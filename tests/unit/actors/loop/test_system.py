"""The start of a system, with the actors replaced by timers or not there at all; whole ones are in tests/system."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from guarded import guarded
from system import system_config
from virtual_time import run

from actors.loop import system as module
from actors.loop.system import System
from openrs_ray.errors import UserError
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.decisions import Decision, note_decision
from openrs_ray.run.progress import Progress


def test_a_resume_may_not_take_away_the_reference_of_a_rollback(tmp_path: Path) -> None:
    config = guarded("warn", tmp_path)
    config.run.path.mkdir()
    evidence, changes = {"rule": "language"}, {"kl_beta": (0.0, 0.02)}
    note_decision(config.run.path, Decision(30, 1, "guard", "roll back", changes, evidence, "", to_step=0))
    system: Any = object.__new__(System)
    system.config, system.progress = config, Progress()
    system._store = CheckpointStore(config.run.path / "checkpoints")
    with pytest.raises(UserError, match="no reference model is loaded"):
        asyncio.run(system._newest_checkpoint())


def test_the_teachers_trial_is_no_part_of_the_time_that_a_start_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, now = system_config(tmp_path, tmp_path, run={"name": "run", "folder": str(tmp_path)}), [0.0]
    budget = Budget(config, age_s=0, clock=lambda: now[0])

    def lasting(seconds: float) -> Any:
        async def work(*_: Any) -> None:
            now[0] += seconds

        return work

    trial = SimpleNamespace(due=True, measure=lasting(500))
    monkeypatch.setattr(module, "TeacherTrial", lambda *_: trial)
    parts: Any = SimpleNamespace(
        **dict.fromkeys(("prepared", "placement", "_collector")),
        config=config,
        budget=budget,
        display=SimpleNamespace(status=lambda text: None),
        _judges=SimpleNamespace(start=lasting(5)),
        _start_engines_and_learner=lasting(60),
    )
    run(System._start_actors(parts, None))
    budget.started()
    assert budget.elapsed() == 565
    assert budget.notes["seconds"] == {"start": [65]}
