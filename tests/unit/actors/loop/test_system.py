"""The order in which a run's actors start, and what that costs, with the actors replaced by timers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from system import system_config
from virtual_time import run

from actors.loop import system
from actors.loop.system import System
from openrs_ray.run.budget import Budget


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
    monkeypatch.setattr(system, "TeacherTrial", lambda *_: trial)
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
