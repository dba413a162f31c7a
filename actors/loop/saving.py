"""Checkpoints of the loop: when one is due, and how the learner's state gets into it."""

import asyncio
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from actors.learner.group import LearnerGroup
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.models.model_files import ModelFiles
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import Checkpoint, CheckpointStore, Kind
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import traced


class Saving:
    """Saves a step at most once in each kind."""

    def __init__(
        self,
        config: RunConfig,
        store: CheckpointStore,
        learner: LearnerGroup,
        budget: Budget,
        files: ModelFiles,
        newest: Checkpoint | None,
    ) -> None:
        """`files`: those of the start model that go into every exported policy. `newest`: where the attempt begins."""
        self._config = config.checkpoint
        self._store = store
        self._learner = learner
        self._budget = budget
        self._files = files
        self._saved: tuple[int, Kind] | None = (newest.step, newest.kind) if newest else None
        self._saved_at = time.monotonic()

    def is_kept(self, step: int) -> bool:
        """Whether the newest checkpoint is one of this step that stays."""
        return self._saved == (step, "kept")

    async def if_due(self, progress: Progress) -> None:
        if progress.step % self._config.every_steps == 0:
            await self.save("kept", progress)
        elif self._budget.limited and not self._budget.measured("kept", "resume"):
            await self.save("resume", progress)  # for a figure of what must be set aside for the last one
        elif time.monotonic() - self._saved_at > 60 * self._config.every_minutes:
            await self.save("resume", progress)

    @traced("save", "kind")
    async def save(self, kind: Kind, progress: Progress) -> None:
        """Commit a checkpoint of the step, unless it is already there. RunError when that fails."""
        step = progress.step
        if self.is_kept(step) or self._saved == (step, kind):
            return
        with self._budget.timing(kind):
            folder = self._store.begin(step)
            try:
                async with self._learner.weights:
                    await self._learner.run(partial(self._write, folder, kind))
            except (RunError, OSError) as error:
                raise self._store.abandon(step, error) from error
            await asyncio.to_thread(self._store.commit, step, kind, asdict(progress))
        self._saved, self._saved_at = (step, kind), time.monotonic()

    async def _write(self, folder: Path, kind: Kind) -> None:
        await self._learner.save(folder)
        if kind == "kept":
            await self._learner.export(folder / "policy")
            self._files.write(folder / "policy")
