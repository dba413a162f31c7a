"""Index of completions: everything that filters and orders need, without prompts, texts and tokens."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openrs_ray.evaluation.store import completion_files
from openrs_ray.records import Status
from openrs_ray.report.completion_reading import read_columns
from openrs_ray.report.kept_index import read_index, write_index
from openrs_ray.run.attempts import FILE as ATTEMPTS
from openrs_ray.run.completion_files import FOLDER, Phase, RecordFile, current_files

ENTRY = np.dtype(
    {
        "names": ["file", "row", "step", "problem", "task", "status", "reward", "length"],
        "formats": ["i4", "i4", "i8", "i8", "i2", "i1", "f8", "i4"],
    }
)
"""A completion, in 39 bytes. `file`, `task` and `status` are places in lists (-1: an unknown status); reward NaN: none."""
KEPT = "index"
"""Folder of a run that may be removed at any time."""
STATUSES = [str(status) for status in Status]
_JUDGED = pa.array(["correct", "wrong", "no_answer"]), pa.array([1.0, 0.0, 0.0])
_READ = ("task", "problem_index", "status", "reward", "length")
_AT_ONCE = 4
_WORTH_KEEPING = 500
"""Files; so many are read in about a second."""
_KEPT_SNAPSHOTS = 4
_SETTLED_S = 1.0
"""A folder that was changed before has no change that its time stamp does not show."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    files: Sequence[RecordFile]
    tasks: Sequence[str | None]
    entries: np.ndarray
    """[completions] of ENTRY, in the order of files and rows."""
    found: dict[Hashable, np.ndarray] = field(default_factory=dict)
    """Results of the last queries."""


class Index:
    """Completions in files that `listed` names; each file is read once.

    `watched`: paths that change with the list. `kept`: where the index of many files is kept. `by_verdict`: rewards are 1
    (correct) and 0.
    """

    def __init__(
        self,
        listed: Callable[[], Sequence[RecordFile]],
        watched: Sequence[Path],
        kept: Path | None = None,
        by_verdict: bool = False,
    ) -> None:
        self._listed, self._watched, self._kept, self._by_verdict = listed, watched, kept, by_verdict
        self._files: Sequence[RecordFile] = ()
        self._stamps: tuple[int, ...] | None = None
        self._blocks: dict[str, np.ndarray] = {}
        """By name of the file, which holds its checksum."""
        self._tasks: list[str | None] = []
        self._snapshots: dict[tuple[int, int] | None, Snapshot] = {}
        self._refreshing, self._naming = threading.Lock(), threading.Lock()

    def snapshot(self, steps: tuple[int, int] | None = None) -> Snapshot:
        """As the files, or those of some steps, are now. RunError where one is damaged."""
        with self._refreshing:
            self._list()
            files = [file for file in self._files if steps is None or steps[0] <= file.step <= steps[1]]
            if steps not in self._snapshots or self._snapshots[steps].files != files:
                if len(self._snapshots) >= _KEPT_SNAPSHOTS:
                    self._snapshots.clear()
                self._snapshots[steps] = self._made(files)
            return self._snapshots[steps]

    def _list(self) -> None:
        now = time.time_ns()
        stamps = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in self._watched)
        if stamps != self._stamps:
            self._files = self._listed()
            self._stamps = stamps if max(stamps) < now - _SETTLED_S * 1e9 else None

    def _made(self, files: Sequence[RecordFile]) -> Snapshot:
        self._read(files)
        blocks = [self._blocks[file.path.name] for file in files]
        entries = np.concatenate([np.empty(0, ENTRY), *blocks])
        entries["file"] = np.repeat(np.arange(len(files)), [len(block) for block in blocks])
        return Snapshot(files, self._tasks, entries)

    def _read(self, files: Sequence[RecordFile]) -> None:
        new = [file for file in files if file.path.name not in self._blocks]
        if self._kept and len(new) >= _WORTH_KEEPING and not self._blocks:
            self._blocks, self._tasks = read_index(self._kept, ENTRY, STATUSES)
            new = [file for file in files if file.path.name not in self._blocks]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            blocks = threads.map(self._block, new)
            self._blocks |= dict(zip((file.path.name for file in new), blocks, strict=True))
        if self._kept and len(new) >= _WORTH_KEEPING:
            write_index(self._kept, self._blocks, self._tasks, STATUSES)

    def _block(self, file: RecordFile) -> np.ndarray:
        table = read_columns(file.path, _READ)
        block = np.zeros(len(table), ENTRY)
        block["row"], block["step"] = np.arange(len(table)), file.step
        block["problem"], block["length"] = table["problem_index"].to_numpy(), table["length"].to_numpy()
        block["status"] = pc.fill_null(pc.index_in(table["status"], pa.array(STATUSES)), -1).to_numpy()
        block["reward"] = self._rewards(table)
        block["task"] = self._codes(table["task"].combine_chunks())
        return block

    def _rewards(self, table: pa.Table) -> np.ndarray:
        rewards = table["reward"]
        if self._by_verdict:
            statuses, values = _JUDGED
            rewards = values.take(pc.index_in(table["status"], statuses))
        return np.asarray(rewards.to_numpy(), dtype=np.float64)

    def _codes(self, tasks: pa.Array) -> np.ndarray:
        names = tasks.unique()
        with self._naming:
            self._tasks += [name for name in names.to_pylist() if name not in self._tasks]
            codes = np.array([self._tasks.index(name) for name in names.to_pylist()], dtype="i2")
        return np.asarray(np.take(codes, pc.index_in(tasks, names).to_numpy()))


@lru_cache(maxsize=16)
def index_of(run: Path, phase: Phase) -> Index:
    """One per run and phase in a process."""
    watched = run / FOLDER, run / ATTEMPTS
    return Index(lambda: list(current_files(run, phase)), watched, run / KEPT / f"completions-{phase}.npz")


@lru_cache(maxsize=16)
def index_of_evaluation(folder: Path) -> Index:
    """Completions of one model, as `launch.evaluate` writes them."""

    def listed() -> list[RecordFile]:
        return [RecordFile(0, 0, None, "evaluation", path) for path in completion_files(folder)]

    return Index(listed, (folder,), by_verdict=True)
