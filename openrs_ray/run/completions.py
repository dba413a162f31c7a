"""The record of every completion: one Parquet file per step and phase, written before the step's checkpoint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openrs_ray.common.completion_columns import row_json, with_common
from openrs_ray.data.completions import Decoder
from openrs_ray.data.prompt_lengths import Unfit
from openrs_ray.data.rests import Rested
from openrs_ray.errors import RunError
from openrs_ray.records import (
    Group,
    Problem,
    Rollout,
    SamplingSettings,
    Scored,
    Status,
    TokenLogprobs,
    Verdict,
    VersionSpan,
)
from openrs_ray.run.completion_files import FOLDER, Phase, RecordFile, current_files, write_file

SCHEMA = with_common(
    ("step", pa.int64()),
    ("attempt", pa.int32()),
    ("phase", pa.string()),
    ("position", pa.int64()),
    ("logprobs", pa.list_(pa.float32())),  # 0 where given
    ("sampled", pa.list_(pa.bool_())),  # null, or no such column: all tokens; the others were given
    ("reward", pa.float64()),  # null: left out of the loss
    ("rewards", pa.map_(pa.string(), pa.float64())),
    ("versions", pa.list_(pa.struct([("version", pa.int64()), ("start", pa.int32()), ("end", pa.int32())]))),
    ("mean_logprob", pa.float64()),
    ("advantage", pa.float64()),  # null: left out of the loss, replaced, or an evaluation
    ("check_seconds", pa.float64()),
    ("temperature", pa.float64()),  # it was sampled at
    ("max_completion_tokens", pa.int32()),  # of all that follows the prompt
    ("stage", pa.int32()),  # of rollout.stages, from 0; null without, and in evaluations
    ("learner_logprobs", pa.list_(pa.float32())),  # of the policy before the update, 0 where given; null: not computed
    ("reference_logprobs", pa.list_(pa.float32())),  # of the frozen reference, with a KL penalty
    ("entropies", pa.list_(pa.float32())),  # of each token's distribution, where they have a weight in the loss
)
"""Files of older versions lack some of the columns."""
RESTED = pa.schema(
    [
        ("step", pa.int64()),
        ("attempt", pa.int32()),
        ("phase", pa.string()),
        ("position", pa.int64()),
        ("task", pa.string()),
        ("problem_index", pa.int64()),
        ("epoch", pa.int64()),
        ("solved", pa.string()),  # always, or never
        ("visits", pa.int32()),  # in a row
        ("last_epoch", pa.int64()),  # of those visits
        ("after_step", pa.int64()),  # last step whose results were known
        ("prompt_tokens", pa.int32()),
        ("min_prompt_tokens", pa.int32()),  # of the stage
        ("max_prompt_tokens", pa.int32()),
    ]
)
"""Positions that were passed over: their problems were at rest or, by the last three columns, their prompts did not fit."""


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    run_folder: Path
    decoder: Decoder | None = None
    """Makes the prompts' text; None leaves it out."""

    def write(
        self,
        step: int,
        attempt: int,
        groups: Sequence[Group],
        texts: Sequence[Sequence[str]],
        advantages: Sequence[Sequence[float]] | np.ndarray | None,
        phase: Phase = "train",
        scored: Scored | None = None,
    ) -> Path:
        """Write all completions of a step; returns the file. A step's replaced groups go first: they count with the others.

        `texts` and `advantages` are [group][sample]; advantages are NaN where left out of the loss, None for replaced groups and
        evaluations. An evaluation's step is its policy version.
        """
        rows = _rows(step, attempt, phase, groups, texts, advantages, self._prompts(groups), scored or {})
        return write_file(self.run_folder, phase, step, attempt, rows)

    def _prompts(self, groups: Sequence[Group]) -> list[str | None]:
        if self.decoder is None:
            return [None] * len(groups)
        return [*self.decoder.decode([group.problem.prompt_ids for group in groups])]

    def write_passed(self, step: int, attempt: int, rested: Sequence[Rested], unfit: Sequence[Unfit] = ()) -> Path:
        """Write the positions that a step's drawing passed over."""
        known: list[dict[str, Any]] = [
            {"solved": each.solved, "visits": abs(each.streak[0]), "last_epoch": each.streak[1]}
            | {"after_step": each.after_step}
            for each in rested
        ]
        known += [
            {"prompt_tokens": each.tokens, "min_prompt_tokens": each.least, "max_prompt_tokens": each.most}
            for each in unfit
        ]
        passed: list[Rested | Unfit] = [*rested, *unfit]
        rows = [
            {"step": step, "attempt": attempt, "phase": "rested", "position": each.position, "task": each.place.task}
            | {"problem_index": each.place.problem, "epoch": each.place.epoch}
            | why
            for each, why in zip(passed, known, strict=True)
        ]
        return write_file(self.run_folder, "rested", step, attempt, pa.Table.from_pylist(rows, schema=RESTED))


def current_rows(run_folder: Path, phase: Phase = "train", columns: list[str] | None = None) -> pa.Table:
    """Rows that count, by step; null in columns that older versions did not write. RunError when a file is damaged."""
    tables = [file.read(columns, SCHEMA) for file in current_files(run_folder, phase)]
    if tables:
        return pa.concat_tables(tables)
    return SCHEMA.empty_table() if columns is None else SCHEMA.empty_table().select(columns)


def read_groups(run_folder: Path, step: int, problems: Sequence[Problem]) -> list[Group]:
    """The groups that a step was trained on, in order; training on them again gives the same update.

    RunError unless the record holds that step once and undamaged.
    """
    groups: dict[int, tuple[Problem, list[Rollout], list[Verdict]]] = {}
    sampling: dict[int, SamplingSettings | None] = {}
    for row in _only_file(run_folder, step).read().to_pylist():
        problem = problems[row["problem_index"]]
        if problem.text != row["problem"]:
            raise RunError(f"the record of step {step} has another problem {row['problem_index']} than the run")
        _, rollouts, verdicts = groups.setdefault(row["position"], (problem, [], []))
        sampling[row["position"]] = sampling_of(row)
        rollouts.append(
            Rollout(
                position=row["position"],
                sample=row["sample"],
                token_ids=np.array(row["token_ids"], dtype=np.int32),
                sampled=np.array(row.get("sampled") or [True] * len(row["token_ids"]), dtype=np.bool_),
                logprobs=np.array(row["logprobs"], dtype=np.float32),
                finish_reason=row["finish_reason"],
                versions=tuple(VersionSpan(**span) for span in row["versions"]),
                worker=row["worker"],
            )
        )
        verdicts.append(
            Verdict(
                status=Status(row["status"]),
                rewards=dict(row["rewards"]),
                reward=row["reward"],
                answer=row["answer"],
                seconds=row["check_seconds"],
                detail=row["detail"],
            )
        )
    return [
        Group(position, problem, tuple(rollouts), tuple(verdicts), sampling=sampling[position])
        for position, (problem, rollouts, verdicts) in groups.items()
    ]


def sampling_of(row: dict[str, Any]) -> SamplingSettings | None:
    """None for a row of an older version."""
    temperature, most = row.get("temperature"), row.get("max_completion_tokens")
    return None if temperature is None or most is None else SamplingSettings(temperature, most, row.get("stage"))


def _only_file(run_folder: Path, step: int) -> RecordFile:
    """RunError unless there is exactly one, with a checksum."""
    files = [file for file in current_files(run_folder, "train") if file.step == step]
    if not files:
        raise RunError(f"the record in {run_folder / FOLDER} does not hold step {step}")
    if len(files) > 1:
        raise RunError(f"the record holds step {step} twice, in {' and '.join(file.path.name for file in files)}")
    if files[0].crc32 is None:
        raise RunError(f"{files[0].path} has no checksum, so step {step} is not trained again: go on with --resume")
    return files[0]


def _rows(
    step: int,
    attempt: int,
    phase: Phase,
    groups: Sequence[Group],
    texts: Sequence[Sequence[str]],
    advantages: Sequence[Sequence[float]] | np.ndarray | None,
    prompts: Sequence[str | None],
    scored: Scored,
) -> pa.Table:
    """The table of a step, built by column and from whole arrays, because a step may have millions of tokens."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    values = [math.nan] * len(rollouts) if advantages is None else [float(v) for row in advantages for v in row]
    learned = [
        scored.get((place, sample)) for place, group in enumerate(groups) for sample in range(len(group.rollouts))
    ]
    marks = [None if rollout.sampled.all() else rollout.sampled for rollout in rollouts]
    columns: dict[str, Any] = {
        **_of_problems(groups, prompts),
        "sample": [rollout.sample for rollout in rollouts],
        "text": [text for own in texts for text in own],
        "token_ids": _lists([rollout.token_ids for rollout in rollouts], pa.int32()),
        "length": [rollout.sampled_tokens for rollout in rollouts],
        "finish_reason": [rollout.finish_reason for rollout in rollouts],
        "status": [str(verdict.status) for verdict in verdicts],
        "answer": [verdict.answer for verdict in verdicts],
        "detail": [verdict.detail for verdict in verdicts],
        "worker": [rollout.worker for rollout in rollouts],
        "step": [step] * len(rollouts),
        "attempt": [attempt] * len(rollouts),
        "phase": [phase] * len(rollouts),
        "position": [rollout.position for rollout in rollouts],
        "logprobs": _lists([rollout.logprobs for rollout in rollouts], pa.float32()),
        "sampled": _lists(marks, pa.bool_()),
        "reward": [verdict.reward for verdict in verdicts],
        "rewards": [list(verdict.rewards.items()) for verdict in verdicts],
        "versions": _spans([rollout.versions for rollout in rollouts]),
        "mean_logprob": [_finite(_mean_logprob(*each)) for each in zip(rollouts, marks, strict=True)],
        "advantage": [_finite(value) for value in values],
        "check_seconds": [verdict.seconds for verdict in verdicts],
        **_of_learner(learned, marks),
        **_of_sampling(groups),
    }
    return pa.table([_column(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _of_learner(learned: Sequence[TokenLogprobs | None], marks: Sequence[np.ndarray | None]) -> dict[str, pa.ListArray]:
    columns = {"learner_logprobs": "policy", "reference_logprobs": "reference", "entropies": "entropy"}
    return {
        column: _lists(
            [_at(getattr(each, name), own) if each else None for each, own in zip(learned, marks, strict=True)],
            pa.float32(),
        )
        for column, name in columns.items()
    }


def _at(values: np.ndarray | None, marks: np.ndarray | None) -> np.ndarray | None:
    """Values of the sampled tokens, among all tokens."""
    if values is None or marks is None:
        return values
    among = np.zeros(len(marks), dtype=np.float32)
    among[marks] = values
    return among


def _of_sampling(groups: Sequence[Group]) -> dict[str, list[Any]]:
    rows = [group.sampling for group in groups for _ in group.rollouts]
    names = "temperature", "max_completion_tokens", "stage"
    return {name: [None if each is None else getattr(each, name) for each in rows] for name in names}


def _of_problems(groups: Sequence[Group], prompts: Sequence[str | None]) -> dict[str, pa.Array]:
    """Columns that are the same for all rollouts of a group, made once for each."""
    problems = [group.problem for group in groups]
    values: dict[str, list[Any]] = {
        "task": [problem.task for problem in problems],
        "problem_index": [problem.index for problem in problems],
        "problem": [problem.text for problem in problems],
        "prompt": [*prompts],
        "gold": [list(problem.gold) for problem in problems],
        "row": [row_json(problem.row, problem.text) for problem in problems],
    }
    places = pa.array(np.repeat(np.arange(len(groups)), [len(group.rollouts) for group in groups]))
    return {name: pa.array(each, type=SCHEMA.field(name).type).take(places) for name, each in values.items()}


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type=kind)


def _lists(rows: Sequence[np.ndarray | None], kind: pa.DataType) -> pa.Array:
    """A column of lists, null for rows that are None."""
    there = [row for row in rows if row is not None]
    values = pa.array(np.concatenate(there) if there else [], type=kind)
    offsets = np.cumsum([0, *(0 if row is None else len(row) for row in rows)], dtype=np.int32)
    missing = pa.array([row is None for row in rows], type=pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=missing)


def _spans(rows: Sequence[Sequence[VersionSpan]]) -> pa.Array:
    kind = SCHEMA.field("versions").type
    flat = [(span.version, span.start, span.end) for row in rows for span in row]
    numbers = np.array(flat, dtype=np.int64).reshape(-1, 3)
    parts = [pa.array(numbers[:, place], type=kind.value_type.field(place).type) for place in range(3)]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(parts, fields=list(kind.value_type)))


def _mean_logprob(rollout: Rollout, marks: np.ndarray | None) -> float:
    return float((rollout.logprobs if marks is None else rollout.logprobs[marks]).mean())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
