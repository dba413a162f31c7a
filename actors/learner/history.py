"""Sources of a lost learner's weights: the last checkpoint and the recorded steps since."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openrs_ray.records import Group, Problem
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completions import read_groups


@dataclass(frozen=True)
class History:
    run_folder: Path
    store: CheckpointStore
    problems: Sequence[Problem]

    async def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Newest whole checkpoint, and a sentence about each newer, damaged one."""
        return await asyncio.to_thread(self.store.latest_good)

    def groups(self, step: int) -> list[Group]:
        return read_groups(self.run_folder, step, self.problems)
