"""Checks of the rows of a run's record against their file's name, group, problem, and their step's bounds and figures."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openrs_ray.algorithm.advantages import spread
from openrs_ray.algorithm.step_metrics import SHARES, share_of_checked
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.records import Status
from openrs_ray.run.attempts import AttemptSettings, read_settings_of_attempts
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.completions import SCHEMA
from openrs_ray.run.problems import text_digests

Row = dict[str, Any]
"""A row with `digest`, `counts`, `likelihood` and `possible` (False where no policy can sample it) instead of token data."""
Fault = tuple[str, str]
"""Kind and place. Example: ("rows whose versions do not cover the completion", "step 4 position 12 sample 1")"""

_HEAVY = ("token_ids", "logprobs")
_LIGHT = (
    "step", "attempt", "phase", "position", "problem_index", "problem", "sample", "text", "answer", "reward", "status",
    "finish_reason", "length", "versions", "advantage",
)  # fmt: skip
_NEVER_EMPTY = [name for name in (*_LIGHT, *_HEAVY) if name not in ("answer", "reward", "advantage")]
_MARKS = "sampled"
_NEWER = (_MARKS, "temperature", "max_completion_tokens", "stage")
"""Columns that may be null, or missing in a file of an older version."""
_JUDGED = {str(status) for status in Status if status.judged}
_ROUNDING = 1e-3
"""Log-probabilities up to this are 0."""
_NEVER_AGAIN = -40.0
"""No event of a smaller log-probability happens: in 1e8 groups the chance is below 1e-9."""


@dataclass(frozen=True, slots=True)
class Expected:
    texts: dict[int, str]
    """Digests by problem; where an older version wrote none, those of each one's first row."""
    problems_per_step: int
    present: AttemptSettings
    """For attempts that noted none."""
    noted: Mapping[int, AttemptSettings]

    @classmethod
    def of(cls, run_folder: Path, config: RunConfig, texts: Sequence[str]) -> "Expected":
        present = AttemptSettings.of(config)
        return cls(
            texts=dict(enumerate(texts)),
            problems_per_step=config.rollout.problems_per_step,
            present=present,
            noted=read_settings_of_attempts(run_folder, present),
        )

    def settings(self, attempt: int) -> AttemptSettings:
        return self.noted.get(attempt, self.present)


def read_rows(file: RecordFile) -> list[Row]:
    """RunError where the file is damaged or lacks a required cell."""
    table = file.read()
    if not {*_LIGHT, *_HEAVY} <= {*table.column_names}:
        file.read([*_LIGHT, *_HEAVY])  # raises, and says which one is missing
    for name in (name for name in _NEWER if name not in table.column_names):
        table = table.append_column(name, pa.nulls(len(table), SCHEMA.field(name).type))
    for name in (*_NEVER_EMPTY, *_NEWER):
        column, kind = table[name].combine_chunks(), SCHEMA.field(name).type
        if column.type != kind:
            raise RunError(f"{file.path} has {name} as {column.type} instead of {kind}")
        if name in _NEWER and not pa.types.is_list(kind):
            continue
        inside = column.flatten() if pa.types.is_list(kind) else column
        parts = inside.flatten() if pa.types.is_struct(inside.type) else [inside]
        if (column.null_count and name not in _NEWER) or any(part.null_count for part in parts):
            raise RunError(f"{file.path} has rows without {name}")
    rows: list[Row] = table.select([*_LIGHT, *_NEWER[1:]]).to_pylist()
    tokens, logprobs = (table[name].to_numpy() for name in _HEAVY)
    for row, ids, values, marks in zip(rows, tokens, logprobs, table[_MARKS].to_pylist(), strict=True):
        sampled = np.ones(len(ids), dtype=np.bool_) if marks is None else np.array(marks, dtype=np.bool_)
        row["sampled"], row["tokens"], given = sampled, len(ids), int((~sampled).sum())
        row["digest"], row["counts"] = ids.tobytes(), {len(ids), len(values), len(sampled), row["length"] + given}
        row["likelihood"] = float(np.sum(values, dtype=np.float64))
        possible = np.all(ids >= 0) and np.all(np.isfinite(values) & (values <= _ROUNDING))
        row["possible"] = bool(possible) and not (len(values) == len(sampled) and values[~sampled].any())
    return rows


def faults(
    step: int, rows: Mapping[RecordFile, Sequence[Row]], expected: Expected, figures: Row | None
) -> Iterator[Fault]:
    """Faults of one step. `figures`: its line in metrics.jsonl."""
    for file, found in rows.items():
        yield from _file_faults(file, found, expected)
        if file.phase != "evaluation":
            yield from _text_faults(found, expected.texts)
    trained, replaced = ([file for file in rows if file.phase == phase] for phase in ("train", "replaced"))
    if len(trained) > 1 or len(replaced) > 1:
        yield "steps with two files of one kind", f"step {step}"
    if not trained:
        return  # only evaluated, or killed before the rest of it was written
    most = expected.settings(trained[-1].attempt).replaced_per_step
    used, others = ([row for file in files for row in rows[file]] for files in (trained, replaced))
    for fault in _step_faults(used, others, expected.problems_per_step, most, figures):
        yield "steps that are not as they were counted", f"step {step} ({fault})"


def _file_faults(file: RecordFile, rows: Sequence[Row], expected: Expected) -> Iterator[Fault]:
    oldest = file.step - 1 - expected.settings(file.attempt).staleness
    versions = range(file.step, file.step + 1) if file.phase == "evaluation" else range(max(0, oldest), file.step)
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["position"]].append(row)
        for fault in _row_faults(file, row, versions):
            yield fault, _place(row)
    for position, group in groups.items():
        for fault in _group_faults(file, group, expected.settings(file.attempt)):
            yield fault, f"step {file.step} position {position}"


def _text_faults(rows: Sequence[Row], texts: dict[int, str]) -> Iterator[Fault]:
    for row, digest in zip(rows, text_digests(row["problem"] for row in rows), strict=True):
        if texts.setdefault(row["problem_index"], digest) != digest:
            yield "rows with another text than their problem has", _place(row)


def _place(row: Row) -> str:
    return f"step {row['step']} position {row['position']} sample {row['sample']}"


def _row_faults(file: RecordFile, row: Row, versions: range) -> Iterator[str]:
    if (row["phase"], row["step"], row["attempt"]) != (file.phase, file.step, file.attempt):
        yield "rows that contradict the name of their file"
    if len(row["counts"]) > 1:
        yield "rows with other numbers of tokens, log-probabilities and length"
    if not row["possible"]:
        yield "rows with tokens or log-probabilities that cannot be"
    if not _covers(row["versions"], row["sampled"]):
        yield "rows whose versions do not cover the completion"
    if any(span["version"] not in versions for span in row["versions"]):
        yield "rows sampled by a policy that was too old or did not exist yet"


def _covers(spans: Sequence[Mapping[str, int]], sampled: np.ndarray) -> bool:
    """True when the spans cut the sampled tokens into pieces, with rising versions where two touch."""
    pieces = [(span["start"], span["end"], span["version"]) for span in spans]
    rising = all(
        (end < start and older <= newer) or (end == start and older < newer)
        for (_, end, older), (start, _, newer) in pairwise(pieces)
    )
    inside = all(0 <= start < end and sampled[start:end].sum() == end - start for start, end, _ in pieces)
    return bool(pieces) and inside and rising and sum(end - start for start, end, _ in pieces) == sampled.sum()


def _group_faults(file: RecordFile, group: Sequence[Row], settings: AttemptSettings) -> Iterator[str]:
    if len({(row["problem_index"], row["problem"]) for row in group}) > 1:
        yield "groups of several problems"
    if file.phase != "evaluation" and settings.likelihoods and any(map(_copied, _alike(group))):
        yield "groups in which completions are copies of another"
    if any(_read_differently(rows) for rows in _alike(group)):
        yield "groups in which the same tokens are different texts or answers"
    if file.phase == "train" and not _learned_from(group, settings.without_truncated):
        yield "groups whose advantages do not follow from their rewards"
    if file.phase != "train" and any(row["advantage"] is not None for row in group):
        yield "groups with advantages that were not trained on"
    if file.phase == "replaced" and spread(_values(group, "reward")[None])[0]:
        yield "groups that were replaced although their rewards differ"


def _alike(group: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of each completion that occurs several times."""
    by_tokens: dict[bytes, list[Row]] = defaultdict(list)
    for row in group:
        by_tokens[row["digest"]].append(row)
    return (rows for rows in by_tokens.values() if len(rows) > 1)


def _copied(rows: Sequence[Row]) -> bool:
    """True when a completion occurs more often than it can be sampled."""
    return bool((len(rows) - 1) * max(row["likelihood"] for row in rows) < _NEVER_AGAIN)


def _read_differently(rows: Sequence[Row]) -> bool:
    answers = {row["answer"] for row in rows if row["status"] in _JUDGED}
    return len({row["text"] for row in rows}) > 1 or len(answers) > 1


def _learned_from(group: Sequence[Row], without_truncated: bool) -> bool:
    """True when exactly the judged completions have advantages, proportional to their distance from the mean reward.

    With `without_truncated` only those of them that were not cut.
    """
    rewards, found = _values(group, "reward"), _values(group, "advantage")
    judged = ~np.isnan(rewards)
    if judged.sum() < 2:
        return bool(np.isnan(found).all())
    cut = [without_truncated and row["finish_reason"] == "length" for row in group]
    learned = judged & ~np.array(cut)
    if not np.array_equal(learned, ~np.isnan(found)):
        return False
    distance = rewards[learned] - rewards[judged].mean()
    if not spread(rewards[None])[0] or not distance.any():
        return not found[learned].any()
    scale = float(found[learned] @ distance / (distance @ distance))
    return scale > 0 and bool(np.allclose(found[learned], scale * distance, rtol=1e-6, atol=1e-6 * scale))


def _values(group: Sequence[Row], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in group], dtype=np.float64)


def _step_faults(
    trained: Sequence[Row], replaced: Sequence[Row], per_step: int, most_replaced: int, figures: Row | None
) -> Iterator[str]:
    groups, others = ({row["position"] for row in rows} for rows in (trained, replaced))
    if len(groups) != per_step:
        yield f"trained on {len(groups)} groups instead of {per_step}"
    if len(others) > most_replaced:
        yield f"replaced {len(others)} groups, of at most {most_replaced}"
    if figures is None or not trained:
        return
    counted = {"attempt": trained[0]["attempt"], "replaced_groups": len(others), **_figures([*trained, *replaced])}
    for name, value in counted.items():
        if (name in figures or name == "sampled_tokens") and not _agree(name, value, figures.get(name)):
            yield f"{name} is {value:g} by its rows and {figures.get(name)} in metrics.jsonl"


def _agree(name: str, value: float, logged: Any) -> bool:
    if math.isnan(value) and logged == 0 and name.endswith(SHARES):  # of an older version
        return True
    if logged is not None and not isinstance(logged, int | float):
        return False
    return math.isnan(value) if logged is None else math.isclose(value, logged, rel_tol=1e-9, abs_tol=1e-9)


def _figures(rows: Sequence[Row]) -> dict[str, float]:
    statuses = Counter(row["status"] for row in rows)
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    rewarded = Counter(row["status"] for row in rows if row["reward"] is not None)
    return {
        "sampled_tokens": sum(row["length"] for row in rows),
        "max_length": max(row["length"] for row in rows),
        "truncated_share": sum(row["finish_reason"] == "length" for row in rows) / len(rows),
        "accuracy": share_of_checked(rewarded, Status.CORRECT),
        "no_answer_share": share_of_checked(rewarded, Status.NO_ANSWER),
        "timeouts": statuses["timeout"],
        "errors": statuses["error"],
        "not_judged": sum(row["reward"] is None and row["status"] in _JUDGED for row in rows),
        "reward": sum(rewards) / len(rewards) if rewards else math.nan,
    }
