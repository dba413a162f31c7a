"""The run that is audited: its settings, and its record as groups of rollouts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from openrs_ray.common.files import read_json
from openrs_ray.config.names import CODE
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import Phase, RecordFile, current_files
from openrs_ray.run.completions import SCHEMA, sampling_of
from openrs_ray.run.log import FOLDER as ATTEMPTS
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.state import CONFIG

PHASES: tuple[Phase, ...] = ("train", "replaced", "evaluation")
_OF_TOKENS = ["token_ids", "logprobs", "sampled", "learner_logprobs", "reference_logprobs", "entropies"]
_CUT = re.compile(r"\.\.\. \([\d,]+ characters\)$")
"""The end of a cell that the record has cut."""


@dataclass(frozen=True)
class AuditedRun:
    """Example: AuditedRun.read(Path("/home/me/openrs_runs/open-rs3"))"""

    folder: Path
    config: RunConfig
    problems: RunProblems

    @classmethod
    def read(cls, folder: Path) -> "AuditedRun":
        """UserError where a file is missing or damaged."""
        problems = RunProblems.read(folder)
        if problems is None or not (folder / CONFIG).exists():
            missing = CONFIG if problems else "problems.json"
            raise UserError(f"{folder} is no run's folder: {missing} is missing")
        return cls(folder, _settings(folder, folder / CONFIG), problems)

    @cached_property
    def _by_attempt(self) -> dict[int, RunConfig]:
        paths = (self.folder / ATTEMPTS).glob(f"*/{CONFIG}")
        numbered = {int(path.parent.name): path for path in paths if path.parent.name.isdecimal()}
        return {attempt: _settings(self.folder, path) for attempt, path in numbered.items()}

    def settings(self, attempt: int) -> RunConfig:
        """Settings of an attempt; the newest ones of an attempt that an older version made, which kept no others."""
        return self._by_attempt.get(attempt, self.config)

    def keeps_settings(self, attempt: int) -> bool:
        return attempt in self._by_attempt

    def writes_all(self, line: Mapping[str, Any]) -> bool:
        """True for a line of a version that writes all figures which are computed again here."""
        return self.keeps_settings(line["attempt"]) or any(name.startswith("setting/") for name in line)

    def files(self, phases: Sequence[Phase] = PHASES) -> list[RecordFile]:
        """Files of the record that count."""
        return [file for phase in phases for file in current_files(self.folder, phase)]

    def name(self, path: Path) -> str:
        """A path as one in the run's folder."""
        return path.relative_to(self.folder).as_posix()

    @cached_property
    def train_lines(self) -> dict[int, dict[str, Any]]:
        """Lines of metrics.jsonl that count, by step."""
        return {line["step"]: line for line in read_metrics(self.folder)}

    @cached_property
    def evaluation_lines(self) -> dict[int, dict[str, Any]]:
        return {line["step"]: line for line in read_metrics(self.folder, "evaluation")}

    @cached_property
    def policies(self) -> dict[int, Checkpoint]:
        """Checkpoints with a policy, by step."""
        store = CheckpointStore(self.folder / "checkpoints")
        return {one.step: one for one in store.checkpoints() if one.policy.is_dir() and any(one.policy.iterdir())}


def _settings(folder: Path, path: Path) -> RunConfig:
    """Settings of a run or of one of its attempts, which find its own copy of the user's code. UserError when damaged."""
    try:
        config = RunConfig.model_validate(read_json(path) or {})
    except ValidationError as error:
        raise UserError(
            f"{path} has settings that this version does not know: audit the run with the version that wrote it"
        ) from error
    config.look_in([folder / CODE])
    return config


@dataclass(frozen=True)
class Recorded:
    """The groups of one file of the record, with what only the record knows of them."""

    file: RecordFile
    groups: tuple[Group, ...]
    rows: tuple[tuple[dict[str, Any], ...], ...]
    """The rows of each group, in order."""

    def cut(self, place: int) -> bool:
        """True where cells of a group's row of the data were too long for the record."""
        cells = json.loads(self.rows[place][0]["row"] or "{}")
        return any(isinstance(cell, str) and _CUT.search(cell) for cell in cells.values())


def read_recorded(run: AuditedRun, file: RecordFile) -> Recorded:
    """RunError where the file is not as it was written, or holds what cannot be."""
    by_position: dict[int, list[dict[str, Any]]] = {}
    try:
        for row in _rows(file.read(schema=SCHEMA)):
            by_position.setdefault(row["position"], []).append(row)
        groups = tuple(_group(run.settings(file.attempt), rows) for rows in by_position.values())
    except (TypeError, ValueError, KeyError) as error:
        raise RunError(f"{file.path} holds rows that cannot be ({error})") from error
    return Recorded(file, groups, tuple(map(tuple, by_position.values())))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows, with their columns of tokens as arrays: as Python's numbers they would take ten times the memory."""
    rows: list[dict[str, Any]] = table.drop_columns(_OF_TOKENS).to_pylist()
    for name in _OF_TOKENS:
        for row, values in zip(rows, _arrays(table[name]), strict=True):
            row[name] = values
    return rows


def _arrays(column: pa.ChunkedArray) -> Iterator[np.ndarray | None]:
    """Each row's values. ValueError where one of them is null."""
    for chunk in column.chunks:
        if chunk.values.null_count:
            raise ValueError("a token's value is null")
        offsets, values = chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=False)
        for row, there in enumerate(chunk.is_valid().to_pylist()):
            yield values[offsets[row] : offsets[row + 1]] if there else None


def recorded(run: AuditedRun, phases: Sequence[Phase] = PHASES) -> Iterator[Recorded]:
    for file in run.files(phases):
        yield read_recorded(run, file)


def _group(config: RunConfig, rows: Sequence[dict[str, Any]]) -> Group:
    first = rows[0]
    task = first["task"] or ""
    cells = json.loads(first["row"] or "{}")
    row = {config.task(task).data.columns.problem: first["problem"]} | cells  # the record leaves the problem's text out
    problem = Problem(first["problem_index"], first["problem"], (), tuple(first["gold"] or ()), task, row)
    texts = tuple(row["text"] or "" for row in rows)
    rollouts, verdicts = tuple(map(_rollout, rows)), tuple(map(_verdict, rows))
    return Group(first["position"], problem, rollouts, verdicts, texts, sampling_of(first))


def _rollout(row: dict[str, Any]) -> Rollout:
    ids = np.array(row["token_ids"], dtype=np.int32)
    return Rollout(
        position=row["position"],
        sample=row["sample"],
        token_ids=ids,
        sampled=np.ones(len(ids), np.bool_) if row["sampled"] is None else np.array(row["sampled"], np.bool_),
        logprobs=np.array(row["logprobs"], dtype=np.float32),
        finish_reason=row["finish_reason"],
        versions=tuple(VersionSpan(**span) for span in row["versions"]),
        worker=row["worker"],
    )


def _verdict(row: dict[str, Any]) -> Verdict:
    return Verdict(
        Status(row["status"]), dict(row["rewards"]), row["reward"], row["answer"], row["check_seconds"], row["detail"]
    )
