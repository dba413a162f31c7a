"""The files of a checkpoint: synced and listed when written, checked before they are loaded.

DeepSpeed unpickles every file of a `state/`: it must lie in the run's folder and hold exactly the committed
files.
"""

import stat
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from openrs_ray.common.files import damaged, read_json, sync
from openrs_ray.common.foreign import why

Kind = Literal["kept", "resume"]
STATE, POLICY, ADAPTER, TRAINER = "state", "policy", "adapter", "trainer.json"
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Example: FileEntry("state/rank-0.pt", size=1024, crc32=912)"""

    path: str
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path
    step: int
    kind: Kind
    complete: bool
    """True while `state/` is there to resume from."""
    files: tuple[FileEntry, ...]

    @property
    def state(self) -> Path:
        return self.folder / STATE

    @property
    def policy(self) -> Path:
        return self.folder / POLICY

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def trainer_state(self) -> dict[str, Any]:
        state = read_json(self.folder / TRAINER)
        if state is None:
            raise damaged(self.folder, f"it has no {TRAINER}")
        return state

    def damage(self) -> str | None:
        """The first file that is not as committed, in words."""
        listed = {self.folder / file.path for file in self.files}
        for path in self.state.rglob("*"):
            if path not in listed and not path.is_dir():
                return f"{path} was not there when it was written"
        return self._first_damage(self.files)

    def policy_damage(self) -> str | None:
        """The first file of the policy, or of its adapter, that is not as committed, in words."""
        return self._first_damage(file for file in self.files if file.path.startswith((f"{POLICY}/", f"{ADAPTER}/")))

    def _first_damage(self, files: Iterable[FileEntry]) -> str | None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            return next(filter(None, pool.map(self._file_damage, files)), None)

    def _file_damage(self, file: FileEntry) -> str | None:
        path = self.folder / file.path
        try:
            if not path.resolve().is_relative_to(self.folder.parent.resolve()):
                return f"{path} lies outside the run's folder"
            size = path.stat().st_size
            if size != file.size:
                return f"{path} has {size} bytes instead of {file.size}"
            if _crc32(path) != file.crc32:
                return f"{path} does not have the content that was written"
        except FileNotFoundError:
            return f"{path} is missing"
        except (OSError, ValueError) as error:
            return f"{path} cannot be read ({why(error)})"
        return None

    def without_state(self) -> "Checkpoint":
        files = tuple(file for file in self.files if not file.path.startswith(f"{STATE}/"))
        return replace(self, complete=False, files=files)


def open_to(mode: int, folder: Path) -> None:
    """Give every file the umask's rights: safetensors makes files that only their owner can read."""
    for path in folder.rglob("*"):
        if path.is_file() and (had := stat.S_IMODE(path.stat().st_mode)) | mode != had:
            path.chmod(had | mode)


def sync_and_list(folder: Path) -> tuple[FileEntry, ...]:
    paths = sorted(folder.rglob("*"))
    files = [path for path in paths if path.is_file()]

    def entry(path: Path) -> FileEntry:
        sync(path)
        return FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, _crc32(path))

    with ThreadPoolExecutor(max_workers=4) as pool:  # crc32 and reads release the interpreter lock
        entries = tuple(pool.map(entry, files))
    for path in [path for path in paths if path.is_dir()] + [folder]:
        sync(path)
    return entries


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
