"""The start of a system, before its first actor; whole ones are in tests/system."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from guarded import guarded

from actors.loop.system import System
from openrs_ray.errors import UserError
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
