"""Holds every row of a run's record against its file's name, its group, its problem, and its step's bounds and figures.

`openrs_ray.run.completions.check_accounting` counts positions; this is about what stands at them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.run.attempts import Bounds, read_bounds
from openrs_ray.run.completion_files import Phase, RecordFile, current_files
from openrs_ray.run.completions import SCHEMA
from openrs_ray.run.problems import text_digests
from openrs_ray.run.row_checks import COLUMNS, Fault, Row, group_faults, place, row_faults, rows_of, step_faults
from openrs_ray.run.witness import Witness

_NEVER_EMPTY = [name for name in COLUMNS if name not in ("answer", "reward", "advantage")]


@dataclass(frozen=True, slots=True)
class Expected:
    """The facts that the rows of a run are held against."""

    texts: tuple[str, ...]
    """Digests of the problems' texts; none where an older version began the run."""
    problems_per_step: int
    likelihoods: bool
    """True where log-probabilities are those of the distribution that was sampled from."""
    present: Bounds
    """Limits by the config, for attempts that noted none."""
    bounds: Mapping[int, Bounds]
    """By attempt."""

    @classmethod
    def of(cls, run_folder: Path, config: RunConfig, texts: tuple[str, ...]) -> "Expected":
        rollout = config.rollout
        return cls(
            texts=texts,
            problems_per_step=rollout.problems_per_step,
            likelihoods=config.loss.tempered or rollout.temperature == 1.0,
            present=Bounds.of(config),
            bounds=read_bounds(run_folder),
        )

    def of_attempt(self, attempt: int) -> Bounds:
        return self.bounds.get(attempt, self.present)


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome."""

    rows: int
    """Number of rows that were read."""
    unchecked: int
    """Files without a checksum."""
    staleness: int
    """Versions that the last steps may have been sampled ahead of the learner; their positions may be in another order."""
    faults: dict[str, list[str]]
    """Places, by what is wrong there."""


def damages(run_folder: Path) -> list[str]:
    """A sentence about each file that counts and is not as it was written, or lacks what every row has."""
    sentences = []
    for file in _files(run_folder):
        try:
            _check_cells(file)
        except RunError as error:
            sentences.append(str(error))
    return sentences


def _check_cells(file: RecordFile) -> None:
    table = file.read(_NEVER_EMPTY)
    for name in _NEVER_EMPTY:
        column, kind = table[name].combine_chunks(), SCHEMA.field(name).type
        if column.type != kind:
            raise RunError(f"{file.path} has {name} as {column.type} instead of {kind}")
        inside = column.flatten() if pa.types.is_list(kind) else column
        parts = inside.flatten() if pa.types.is_struct(inside.type) else [inside]
        if column.null_count or any(part.null_count for part in parts):
            raise RunError(f"{file.path} has rows without {name}")


def audit(run_folder: Path, expected: Expected, witness: Witness) -> Audit:
    """Check every row that counts, a step at a time; there must be no `damages`."""
    files, faults, count = _files(run_folder), list[Fault](), 0
    texts: dict[int, str] = dict(enumerate(expected.texts))
    for step in sorted({file.step for file in files}):
        rows = {file: rows_of(file.read()) for file in files if file.step == step}
        count += sum(map(len, rows.values()))
        for file, found in rows.items():
            faults += _file_faults(file, found, expected)
            if file.phase != "evaluation":
                faults += _text_faults(found, texts)
        faults += _step_faults(step, rows, expected, witness)
    attempts = {file.step: file.attempt for file in files if file.phase == "train"}
    # The figures as they are now: a run that goes on has written more of both since the witness was called.
    missing = Witness.of(run_folder).missing(max(attempts, default=0))
    faults += [("steps without a line in metrics.jsonl", f"step {step}") for step in missing]
    by_kind: dict[str, list[str]] = {}
    for what, where in faults:
        by_kind.setdefault(what, []).append(where)
    return Audit(count, sum(file.crc32 is None for file in files), _staleness(attempts, expected), by_kind)


def _files(run_folder: Path) -> list[RecordFile]:
    phases: tuple[Phase, ...] = ("train", "replaced", "evaluation")
    return [file for phase in phases for file in current_files(run_folder, phase)]


def _file_faults(file: RecordFile, rows: Sequence[Row], expected: Expected) -> Iterator[Fault]:
    oldest = file.step - 1 - expected.of_attempt(file.attempt).staleness
    versions = range(file.step, file.step + 1) if file.phase == "evaluation" else range(max(0, oldest), file.step)
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["position"]].append(row)
        for what in row_faults(file, row, versions):
            yield what, place(row)
    for position, group in groups.items():
        for what in group_faults(file, group, expected.likelihoods):
            yield what, f"step {file.step} position {position}"


def _step_faults(
    step: int, rows: Mapping[RecordFile, Sequence[Row]], expected: Expected, witness: Witness
) -> Iterator[Fault]:
    trained, replaced = ([file for file in rows if file.phase == phase] for phase in ("train", "replaced"))
    if len(trained) > 1 or len(replaced) > 1:
        yield "steps with two files of one kind", f"step {step}"
    if not trained:
        return  # only evaluated, or killed before the rest of it was written
    most = expected.of_attempt(trained[-1].attempt).replaced_per_step
    used, others = ([row for file in files for row in rows[file]] for files in (trained, replaced))
    for what in step_faults(used, others, expected.problems_per_step, most, witness.figures.get(step)):
        yield "steps that are not as they were counted", f"step {step} ({what})"


def _text_faults(rows: Sequence[Row], texts: dict[int, str]) -> Iterator[Fault]:
    """Rows that have not the text of their problem; one that is not known is what the first row says, and is added."""
    digests = text_digests(row["problem"] for row in rows)
    for row, digest in zip(rows, digests, strict=True):
        if texts.setdefault(row["problem_index"], digest) != digest:
            yield "rows with another text than their problem has", place(row)


def _staleness(attempts: Mapping[int, int], expected: Expected) -> int:
    allowed = {step: expected.of_attempt(attempt).staleness for step, attempt in attempts.items()}
    reach = max(attempts, default=0) - max(allowed.values(), default=0)
    return max((staleness for step, staleness in allowed.items() if step >= reach), default=0)
