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
from openrs_ray.run.attempts import FILE as ATTEMPTS
from openrs_ray.run.completion_files import FOLDER, Phase, RecordFile, current_files

ENTRY = np.dtype(
    {
        "names": ["file", "row", "step", "problem", "task", "status", "reward", "length"],
        "formats": ["i4", "i4", "i8", "i8", "i2", "i1", "f8", "i4"],
    }
)
"""A completion, in 39 bytes. `file`, `task` and `status` are places in lists (-1: an unknown status); reward NaN: none."""
STATUSES = [str(status) for status in Status]
_JUDGED = pa.array(["correct", "wrong", "no_answer"]), pa.array([1.0, 0.0, 0.0])
_READ = ("task", "problem_index", "status", "reward", "length")
_AT_ONCE = 4
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

    `watched`: paths that change with the list. `by_verdict`: rewards are 1 (correct) and 0.
    """

    def __init__(
        self, listed: Callable[[], Sequence[RecordFile]], watched: Sequence[Path], by_verdict: bool = False
    ) -> None:
        self._listed, self._watched, self._by_verdict = listed, watched, by_verdict
        self._blocks: dict[Path, np.ndarray] = {}
        self._tasks: list[str | None] = []
        self._snapshot = Snapshot([], self._tasks, np.empty(0, ENTRY))
        self._stamps: tuple[int, ...] | None = None
        self._refreshing, self._naming = threading.Lock(), threading.Lock()

    def snapshot(self) -> Snapshot:
        """As the files are now. RunError where one is damaged."""
        with self._refreshing:
            now = time.time_ns()
            stamps = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in self._watched)
            if stamps != self._stamps:
                self._refresh(self._listed())
                self._stamps = stamps if max(stamps) < now - _SETTLED_S * 1e9 else None
            return self._snapshot

    def _refresh(self, files: Sequence[RecordFile]) -> None:
        if files == self._snapshot.files:
            return
        new = [file for file in files if file.path not in self._blocks]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            blocks = dict(zip((file.path for file in new), threads.map(self._block, new), strict=True))
        self._blocks = {file.path: (self._blocks | blocks)[file.path] for file in files} if new else self._blocks
        for number, file in enumerate(files):
            self._blocks[file.path]["file"] = number
        entries = np.concatenate([np.empty(0, ENTRY), *(self._blocks[file.path] for file in files)])
        self._snapshot = Snapshot(files, self._tasks, entries)

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
        if not self._by_verdict:
            return table["reward"].to_numpy()
        statuses, values = _JUDGED
        return values.take(pc.index_in(table["status"], statuses)).to_numpy()

    def _codes(self, tasks: pa.Array) -> np.ndarray:
        names = tasks.unique()
        with self._naming:
            self._tasks += [name for name in names.to_pylist() if name not in self._tasks]
            codes = np.array([self._tasks.index(name) for name in names.to_pylist()], dtype="i2")
        return codes[pc.index_in(tasks, names).to_numpy()]


@lru_cache(maxsize=16)
def index_of(run: Path, phase: Phase) -> Index:
    """One per run and phase in a process."""
    return Index(lambda: list(current_files(run, phase)), (run / FOLDER, run / ATTEMPTS))


@lru_cache(maxsize=16)
def index_of_evaluation(folder: Path) -> Index:
    """Completions of one model, as `launch.evaluate` writes them."""

    def listed() -> list[RecordFile]:
        return [RecordFile(0, 0, None, "evaluation", path) for path in completion_files(folder)]

    return Index(listed, (folder,), by_verdict=True)
