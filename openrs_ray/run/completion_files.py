"""The files of a run's record: their names, and which of them count.

    completions/train-step-000584-attempt-002-9f3c21d0.parquet    phase, step, attempt, CRC-32 of the whole file

Files of older versions, without a checksum, are read unchecked and not trained on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import pyarrow as pa

from openrs_ray.common.completion_columns import REPEATED
from openrs_ray.common.parquet import read_table, write_table
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.attempts import read_attempts, superseded

Phase = Literal["train", "replaced", "evaluation", "rested"]
"""The last has no completions, but the positions that a step passed over."""
FOLDER = "completions"
_FEW_VALUES = (
    *REPEATED,
    *("step", "attempt", "phase", "status", "finish_reason", "answer", "detail", "rewards.key_value.key", "solved"),
    *("temperature", "max_completion_tokens", "stage"),
)
"""Columns with few different values. For the others, trying a dictionary would take half the time of writing."""
_TOGETHER = 1024
"""Rows of a large step's file that are read together, when a few of them are looked at."""
_NAME = re.compile(
    r"(?P<phase>train|replaced|evaluation|rested)-step-(?P<step>\d+)-attempt-(?P<attempt>\d+)(-(?P<crc32>[0-9a-f]{8}))?\.parquet"
)


@dataclass(frozen=True, slots=True)
class RecordFile:
    """Example: RecordFile(584, 2, 0x9f3c21d0, "train", Path(...))"""

    step: int
    attempt: int
    crc32: int | None
    """None from an older version."""
    phase: Phase
    path: Path

    @classmethod
    def named(cls, path: Path) -> "RecordFile | None":
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        checksum = int(match["crc32"], 16) if match["crc32"] else None
        return cls(int(match["step"]), int(match["attempt"]), checksum, cast(Phase, match["phase"]), path)

    def read(self, columns: list[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
        """RunError when the rows are not those that were written. `schema`: to read as, null in columns not written."""
        try:
            return read_table(self.path, columns, schema, self.crc32)
        except UserError as error:
            raise RunError(str(error)) from error


def write_file(run_folder: Path, phase: Phase, step: int, attempt: int, rows: pa.Table) -> Path:
    name = f"{phase}-step-{step:06d}-attempt-{attempt:03d}.parquet"
    return write_table(
        run_folder / FOLDER / name, rows, checksum_in_name=True, few_values=_FEW_VALUES, together=_TOGETHER
    )


def record_files(run_folder: Path, phase: Phase | None = None) -> list[RecordFile]:
    """Superseded ones too, by step and attempt."""
    found = map(RecordFile.named, (run_folder / FOLDER).glob(f"{phase or ''}*.parquet"))
    return sorted((file for file in found if file is not None), key=lambda file: (file.step, file.attempt, file.path))


def current_files(run_folder: Path, phase: Phase) -> Iterator[RecordFile]:
    """Files that count, by step."""
    attempts, found = read_attempts(run_folder), record_files(run_folder, phase)
    newest = {file.step: file.attempt for file in found}
    for file in found:
        # A run that goes on from step s may evaluate version s once more: not superseded, yet it must count once.
        repeated = phase == "evaluation" and file.attempt < newest[file.step]
        if not repeated and not superseded(attempts, file.attempt, file.step):
            yield file
