"""The checkpoint and the progress that an attempt begins with."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from openrs_ray.guard.knobs import held, pending_rollback
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.decisions import read_decisions
from openrs_ray.run.ledger import Ledger
from openrs_ray.run.progress import Progress


@dataclass(frozen=True, slots=True)
class Beginning:
    checkpoint: Checkpoint | None
    """None: the start model."""
    progress: Progress
    damages: list[str]
    """Sentences about newer checkpoints that are damaged."""


def beginning(run: Path, store: CheckpointStore, held_out: int) -> Beginning:
    """The newest good checkpoint or, after a decision to go back, the one that was decided on; with what the guard has changed.

    Checkpoints after that decision are discarded. `held_out`: number of problems.
    """
    decided = read_decisions(run)
    back = pending_rollback(decided, max(read_attempts(run), default=0))
    checkpoint, damages = store.latest_good(math.inf if back is None else back)
    progress = Progress(held_out=held_out)
    if checkpoint is not None:
        progress = Progress.read(checkpoint.trainer_state(), checkpoint.folder)
    if back is not None and (checkpoint is not None or not damages):  # damaged ones stay: they may be mended
        store.discard_newer(progress.step)
        Ledger(run).note("start", only_news=True)  # the engines take minutes until the attempt has its entry
    return Beginning(checkpoint, replace(progress, changes=held(progress.changes, decided)), damages)
