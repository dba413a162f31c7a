"""Checkpoints: when one is due, and how the learner's state gets into it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from actors.learner.group import LearnerGroup
from openrs_ray.config import schema
from openrs_ray.errors import RunError
from openrs_ray.models.model_files import ModelFiles
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoint_files import Kind
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import traced


@dataclass
class Saving:
    config: schema.Checkpoint
    store: CheckpointStore
    learner: LearnerGroup
    budget: Budget
    files: ModelFiles
    """Of the start model, for every exported policy."""
    written: Callable[[], Awaitable[None]]
    """Waits until the record has all steps so far: no checkpoint may be ahead of it."""
    saved: tuple[int, Kind] | None = None
    """Newest checkpoint."""
    committed: Callable[[int, str], None] = lambda step, folder: None
    """Told of every checkpoint: its step, and the name of its folder."""
    _saved_at: float = field(default_factory=time.monotonic)

    def is_kept(self, step: int) -> bool:
        """True if the newest checkpoint is of this step and stays."""
        return self.saved == (step, "kept")

    async def if_due(self, progress: Progress) -> None:
        if progress.step % self.config.every_steps == 0:
            await self.save("kept", progress)
        elif self.budget.limited and not self.budget.measured("kept", "resume"):
            await self.save("resume", progress)  # for a figure of what must be set aside for the last one
        elif time.monotonic() - self._saved_at > 60 * self.config.every_minutes:
            await self.save("resume", progress)

    @traced("save", "kind")
    async def save(self, kind: Kind, progress: Progress, anew: bool = False) -> None:
        """Commit a checkpoint of the step, unless it is there and not wanted `anew`. RunError when that fails."""
        step = progress.step
        if not anew and (self.is_kept(step) or self.saved == (step, kind)):
            return
        await self.written()
        with self.budget.timing(kind):
            folder = self.store.begin(step)
            try:
                async with self.learner.weights_lock:
                    await self.learner.run(partial(self._write, folder, kind))
            except (RunError, OSError) as error:
                raise self.store.abandon(step, error) from error
            checkpoint = await asyncio.to_thread(self.store.commit, step, kind, asdict(progress))
            self.committed(step, checkpoint.folder.name)
        self.saved, self._saved_at = (step, kind), time.monotonic()

    async def _write(self, folder: Path, kind: Kind) -> None:
        await self.learner.save(folder)
        if kind == "kept":
            await self.learner.export(folder / "policy")
            self.files.write(folder / "policy")
