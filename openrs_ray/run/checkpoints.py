"""The checkpoints of one run.

    checkpoints/manifest.json            the only truth: which checkpoints exist, size and crc32 of each of their files
    checkpoints/step-000050/state/       DeepSpeed state, while the checkpoint is complete
    checkpoints/step-000050/policy/      the policy as safetensors
    checkpoints/step-000050/adapter/     with LoRA: the adapter in peft's format, which is merged into that policy
    checkpoints/step-000050/trainer.json the trainer's progress
    checkpoints/step-000050.tmp/         being written, or a leftover (step-000050.universal.tmp/: actors.learner.rank)

The manifest's checkpoints lie whole on the disk, and the newest complete one stays until a newer one is listed. Hence the order:
write and sync under the temporary name, rename, replace the manifest (the commit), delete what it no longer lists.
"""

import errno
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openrs_ray.common.files import TEMPORARY, as_record, sync, write_json
from openrs_ray.common.foreign import parse_json
from openrs_ray.common.formatting import size_text
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.checkpoint_files import POLICY, STATE, TRAINER, Checkpoint, Kind, open_to, sync_and_list
from openrs_ray.run.room import is_disk_full

__all__ = ["Checkpoint", "CheckpointStore", "Kind"]

_OWN_NAME = re.compile(r"step-\d{6,}(-\d+)?((\.universal)?\.tmp)?")
"""Only these folders are ever deleted; `step-000050-2` by `_free_name`."""


@dataclass
class CheckpointStore:
    """Writes, prunes and finds checkpoints; only the driver that holds the run's lock may write.

    store.open()                                     # deletes what a kill left behind
    folder = store.begin(step=50)                    # .../step-000050.tmp
    (folder / "state" / "rank-0.pt").write_bytes(b"...")
    store.commit(50, "kept", {"step": 50, "position": 600})     # or abandon
    """

    folder: Path
    keep_last: int = 2
    """Kept checkpoints that stay complete, at least 1."""
    keep_policies: bool = True
    """Older ones keep `policy/`."""
    needed: Callable[[Sequence[int]], Collection[int]] = lambda steps: ()
    """Which of these complete checkpoints' steps, in order, must stay complete: the run may go back (`openrs_ray.guard`)."""

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    def checkpoints(self) -> list[Checkpoint]:
        """Oldest first, files unchecked. UserError if the manifest is damaged."""
        if not self.manifest.exists():
            return []
        try:
            entries = parse_json(self.manifest.read_bytes())["checkpoints"]
            return [self._committed(as_record(Checkpoint, entry, self.manifest)) for entry in entries]
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.manifest} is damaged and nothing was deleted: restore it, or start a run with another name."
            ) from error

    def _committed(self, entry: Checkpoint) -> Checkpoint:
        return replace(entry, folder=self._find(str(entry.folder), entry.step))

    def open(self) -> None:
        """Sweep, and write a new run's manifest."""
        self.sweep()
        if not self.manifest.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_manifest([])

    def latest_good(self, most: float = math.inf) -> tuple[Checkpoint | None, list[str]]:
        """The newest undamaged complete checkpoint up to step `most`, and a sentence about each damaged newer one."""
        damages: list[str] = []
        for checkpoint in reversed([known for known in self.checkpoints() if known.complete and known.step <= most]):
            damage = checkpoint.damage()
            if damage is None:
                return checkpoint, damages
            damages.append(f"Checkpoint {checkpoint.folder.name} is damaged: {damage}.")
        return None, damages

    def discard_newer(self, step: int) -> None:
        checkpoints = self.checkpoints()
        remaining = [checkpoint for checkpoint in checkpoints if checkpoint.step <= step]
        if len(remaining) < len(checkpoints):
            self._write_manifest(remaining)
            self.sweep()

    def begin(self, step: int) -> Path:
        """Make the temporary folder. RunError if the disk has no room."""
        folder = self._temporary(step)
        try:
            self.open()
            shutil.rmtree(folder, ignore_errors=True)
            free, like = shutil.disk_usage(self.folder).free, self._newest_complete()
            if like and free < like.size:  # the next one will be about as large
                raise OSError(errno.ENOSPC, f"only {size_text(free)} are free")
            (folder / STATE).mkdir(parents=True)
            (folder / POLICY).mkdir()
        except OSError as error:
            raise self.abandon(step, error) from error
        return folder

    def commit(self, step: int, kind: Kind, trainer_state: dict[str, Any]) -> Checkpoint:
        """Make the temporary folder the newest checkpoint, then prune. RunError if that fails."""
        temporary = self._temporary(step)
        try:
            write_json(temporary / TRAINER, trainer_state)
            open_to(stat.S_IMODE((temporary / TRAINER).stat().st_mode), temporary)
            files = sync_and_list(temporary)
            folder = self._free_name(step)
            os.rename(temporary, folder)
            sync(self.folder)
            checkpoint = Checkpoint(folder, step, kind, complete=True, files=files)
            older = [known for known in self.checkpoints() if known.step < step]  # the others are superseded
            self._write_manifest(self._pruned([*older, checkpoint]))
            self.sweep()
            if folder != self._named(step) and not self._named(step).exists():
                os.rename(folder, self._named(step))  # `_find` finds it under both names
                self._write_manifest(self.checkpoints())
        except OSError as error:
            raise self.abandon(step, error) from error
        return replace(checkpoint, folder=self._find(folder.name, step))

    def abandon(self, step: int, error: BaseException) -> RunError:
        """Remove a checkpoint that failed; returns the RunError to raise."""
        self.sweep()
        good = self._newest_complete()
        remains = f"the last good checkpoint is {good.folder.name}" if good else "there is no checkpoint yet"
        if not is_disk_full(error):
            return RunError(f"Saving the checkpoint of step {step} in {self.folder} failed ({error}); {remains}.")
        room = f"make room for {size_text(good.size)}" if good else "make room"
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "No space left on device"
        return RunError(
            f"The disk is full: the checkpoint of step {step} could not be saved in {self.folder} ({cause}); "
            f"{remains}; {room} and resume."
        )

    def sweep(self) -> None:
        """Delete folders that the manifest does not list, as far as possible now (NFS keeps files held open)."""
        if not self.folder.exists():
            return
        found = [path for path in self.folder.glob("step-*") if path.is_dir() and _OWN_NAME.fullmatch(path.name)]
        if not self.manifest.exists() and any(path.suffix != TEMPORARY for path in found):
            raise UserError(
                f"{self.manifest} is missing and nothing was deleted: restore it, or start a run with another name."
            )
        listed = {known.folder: known for known in self.checkpoints()}
        for path in found:
            if path not in listed:
                shutil.rmtree(path, ignore_errors=True)
            elif not listed[path].complete:
                shutil.rmtree(path / STATE, ignore_errors=True)

    def _pruned(self, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        kept = [checkpoint for checkpoint in checkpoints if checkpoint.kind == "kept"]
        newest = checkpoints[-1:] if kept else checkpoints[-2:]  # one to fall back on, should the newest be damaged
        needed = self.needed([checkpoint.step for checkpoint in checkpoints if checkpoint.complete])
        complete = {checkpoint.folder for checkpoint in [*kept[-self.keep_last :], *newest]}
        complete |= {
            checkpoint.folder for checkpoint in checkpoints if checkpoint.complete and checkpoint.step in needed
        }
        remaining = []
        for checkpoint in checkpoints:
            if checkpoint.folder in complete:
                remaining.append(checkpoint)
            elif checkpoint.kind == "kept" and self.keep_policies:
                remaining.append(checkpoint.without_state())
        return remaining

    def _write_manifest(self, checkpoints: list[Checkpoint]) -> None:
        entries = [asdict(checkpoint) | {"folder": checkpoint.folder.name} for checkpoint in checkpoints]
        write_json(self.manifest, {"checkpoints": entries})

    def _named(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _temporary(self, step: int) -> Path:
        return Path(f"{self._named(step)}{TEMPORARY}")

    def _free_name(self, step: int) -> Path:
        """`step-000050`, or `step-000050-2` while an earlier one of that step stays until the commit."""
        folder, number = self._named(step), 1
        while folder.exists():
            number += 1
            folder = Path(f"{self._named(step)}-{number}")
        return folder

    def _find(self, name: str, step: int) -> Path:
        """The folder listed as `name`, or its plain name once its predecessor has gone."""
        if not _OWN_NAME.fullmatch(name):
            raise ValueError(f"{name} is not a checkpoint of this run")
        listed = self.folder / name
        return listed if listed.exists() else self._named(step)

    def _newest_complete(self) -> Checkpoint | None:
        return next((known for known in reversed(self.checkpoints()) if known.complete), None)
