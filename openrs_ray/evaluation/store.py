"""Completions of an evaluation, one folder per model; none on the disk is sampled again.

MODEL/settings.json             request and benchmark fingerprints
MODEL/aime24-000007.parquet     completions that ended about the same time
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from openrs_ray.common.completion_columns import row_json, with_common
from openrs_ray.common.files import damaged, read_json, write_json
from openrs_ray.common.foreign import reading
from openrs_ray.common.parquet import column_names, read_table, write_table
from openrs_ray.common.same_request import check_same
from openrs_ray.records import Completion, Status, Verdict

if TYPE_CHECKING:
    from openrs_ray.evaluation.benchmarks import Task

SCHEMA = with_common(
    ("english_share", pa.float64()),
    ("seed", pa.int64()),
    ("sitting", pa.int32()),
)
OLDER_NAMES = {"benchmark": "task", "problem": "problem_index", "text": "problem", "completion": "text"}
"""Columns that older versions named otherwise, with their names now."""


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    benchmark: str
    task: "Task"
    completion: Completion
    verdict: Verdict
    text: str
    """With the chat template's opening."""
    english_share: float
    seed: int
    prompt: str | None = None

    def row(self, sitting: int) -> dict[str, Any]:
        problem, completion = self.task.problem, self.completion
        return {
            "task": self.benchmark,
            "problem_index": problem.index,
            "sample": completion.sample,
            "problem": problem.text,
            "prompt": self.prompt,
            "gold": list(problem.gold),
            "row": row_json(problem.row, problem.text),
            "text": self.text,
            "token_ids": completion.token_ids.tolist(),
            "length": len(completion.token_ids),
            "finish_reason": completion.finish_reason,
            "status": str(self.verdict.status),
            "answer": self.verdict.answer,
            "detail": self.verdict.detail,
            "worker": completion.worker,
            "english_share": self.english_share,
            "seed": self.seed,
            "sitting": sitting,
        }


class CompletionStore:
    """Folder of one model: `open`, then `write` as completions end, and `rows`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sitting = 0
        self._next = 0

    def open(self, settings: dict[str, Any], fingerprints: dict[str, str]) -> None:
        """Begin a sitting. UserError if the folder was filled with other settings, problems, golds or prompts."""
        path = self.folder / "settings.json"
        known = read_json(path) or {"settings": settings, "benchmarks": {}, "sittings": 0}
        kinds = {"settings": dict, "benchmarks": dict, "sittings": int}
        if not all(isinstance(known.get(name), kind) for name, kind in kinds.items()):
            raise damaged(path, f"it must have {', '.join(kinds)}")
        work, instead = f"the evaluation in {self.folder}", "evaluate into another folder"
        check_same({name: known["settings"].get(name) for name in settings}, settings, work, instead)
        contents = {name: f"the problems, golds or prompts of benchmark {name}" for name in fingerprints}
        check_same(fingerprints | known["benchmarks"], known["benchmarks"] | fingerprints, work, instead, contents)
        self._sitting = known["sittings"] + 1
        self._next = max((int(file.stem.rpartition("-")[2]) + 1 for file in self._files("*")), default=0)
        self.folder.mkdir(parents=True, exist_ok=True)
        together = {**known["benchmarks"], **fingerprints}
        write_json(path, {"settings": settings, "benchmarks": together, "sittings": self._sitting})

    def write(self, finished: Sequence[Done]) -> None:
        """One file per benchmark."""
        for benchmark in sorted({done.benchmark for done in finished}):
            rows = [done.row(self._sitting) for done in finished if done.benchmark == benchmark]
            file = self.folder / f"{benchmark}-{self._next:06d}.parquet"
            write_table(file, pa.Table.from_pylist(rows, schema=SCHEMA))
            self._next += 1

    def finished(self, benchmark: str) -> set[tuple[int, int]]:
        """(problem, sample) of every completion."""
        table = self.rows(benchmark, ["problem_index", "sample"])
        return set(zip(table["problem_index"].to_pylist(), table["sample"].to_pylist(), strict=True))

    def count(self) -> int:
        """Completions of all benchmarks."""
        return int(self.rows("*", ["sample"]).num_rows)

    def rows(self, benchmark: str, columns: list[str] | None = None) -> pa.Table:
        """Rows in the order written; null in columns that older versions did not write."""
        tables = [read_completions(file, columns) for file in self._files(benchmark)]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def _files(self, benchmark: str) -> list[Path]:
        return completion_files(self.folder, benchmark)


def completion_files(folder: Path, benchmark: str = "*") -> list[Path]:
    """A model's, in the order written."""
    return sorted(folder.glob(f"{benchmark}-[0-9][0-9][0-9][0-9][0-9][0-9].parquet"))


def read_completions(file: Path, columns: list[str] | None = None) -> pa.Table:
    """A file of this or an older version. UserError where it is damaged."""
    if "benchmark" not in column_names(file):
        return read_table(file, columns, SCHEMA)
    before = {now: older for older, now in OLDER_NAMES.items()}
    asked = [name for name in SCHEMA.names if columns is None or name in columns]
    written = {name: before.get(name, name) for name in asked if name not in ("prompt", "row")}
    kinds = pa.schema([(older, SCHEMA.field(name).type) for name, older in written.items()])
    table = read_table(file, [*written.values()], kinds)
    found = {name: table[older] for name, older in written.items()}
    missing = {name: pa.nulls(len(table), pa.string()) for name in asked if name not in written}
    return pa.table({name: (found | missing)[name] for name in columns or asked})


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Arrays [problems, samples]."""

    status: np.ndarray
    """object: Status."""
    answer: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray
    english: np.ndarray

    def correct(self) -> np.ndarray:
        """float [problems, samples] as in `figures.Samples`."""
        values = {Status.CORRECT: 1.0, Status.WRONG: 0.0, Status.NO_ANSWER: 0.0}
        return np.array([[values.get(status, np.nan) for status in row] for row in self.status], dtype=np.float64)


def as_table(rows: pa.Table, problems: int, samples: int) -> Table:
    """The first `samples` of each problem. KeyError if one is missing."""
    names = ["problem_index", "sample", "status", "answer", "length", "finish_reason", "english_share"]
    found = {(row["problem_index"], row["sample"]): row for row in rows.select(names).to_pylist()}
    grid = [[found[problem, sample] for sample in range(samples)] for problem in range(problems)]

    def array(name: str, kind: Any) -> np.ndarray:
        return np.array([[row[name] for row in line] for line in grid], dtype=kind)

    status = np.empty((problems, samples), dtype=object)
    with reading("the completions of an evaluation are damaged"):
        status[:] = [[Status(row["status"]) for row in line] for line in grid]
        return Table(
            status=status,
            answer=array("answer", object),
            tokens=array("length", np.int64),
            truncated=array("finish_reason", object) == "length",
            english=array("english_share", np.float64),
        )
