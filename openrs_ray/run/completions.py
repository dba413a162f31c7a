"""The record of every completion: one Parquet file per step and phase, and the proof that each problem was used once.

Invariants: a file appears whole or not at all (temporary name, sync, rename), and its name says phase, step, attempt and
checksum (`openrs_ray.run.completion_files`), so that superseded files are left out without opening them. The trainer writes the
record of a step before it commits a checkpoint of that step; then no step that a checkpoint covers can lack its rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openrs_ray.errors import RunError
from openrs_ray.records import Completion, Group, Problem, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.completion_files import FOLDER, Phase, RecordFile, current_files, write_file

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("attempt", pa.int32()),
        ("phase", pa.string()),
        ("position", pa.int64()),
        ("problem_index", pa.int64()),
        ("sample", pa.int32()),
        ("problem", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("reward", pa.float64()),  # null: left out of the loss
        ("rewards", pa.map_(pa.string(), pa.float64())),
        ("status", pa.string()),
        ("answer", pa.string()),
        ("detail", pa.string()),
        ("finish_reason", pa.string()),
        ("length", pa.int32()),
        ("versions", pa.list_(pa.struct([("version", pa.int64()), ("start", pa.int32()), ("end", pa.int32())]))),
        ("mean_logprob", pa.float64()),
        ("advantage", pa.float64()),  # null: left out of the loss, replaced, or an evaluation
        ("worker", pa.int32()),
        ("check_seconds", pa.float64()),
    ]
)


class CompletionRecord:
    """Writes the completions of one run to `RUN/completions/`."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder

    def write(
        self,
        step: int,
        attempt: int,
        groups: Sequence[Group],
        texts: Sequence[Sequence[str]],
        advantages: Sequence[Sequence[float]] | np.ndarray | None,
        phase: Phase = "train",
    ) -> Path:
        """Write all completions of a step; returns the file.

        `texts` and `advantages` are [group][sample]; advantages are NaN where a completion is left out of the loss, and
        None for replaced groups and in an evaluation. An evaluation's step is the policy version that was evaluated.
        The replaced groups of a step go first: they count from when the others are there.
        """
        rows: list[dict[str, Any]] = []
        for number, group in enumerate(groups):
            for index, (completion, verdict) in enumerate(zip(group.completions, group.verdicts, strict=True)):
                advantage = None if advantages is None else _finite(advantages[number][index])
                rows.append(
                    {"step": step, "attempt": attempt, "phase": phase}
                    | {"problem_index": group.problem.index, "problem": group.problem.text}
                    | {"text": texts[number][index], "advantage": advantage}
                    | _columns(completion, verdict)
                )
        return write_file(self._run_folder, phase, step, attempt, pa.Table.from_pylist(rows, schema=SCHEMA))


@dataclass(frozen=True, slots=True)
class Accounting:
    """Whether every draw position of the steps trained so far was used exactly once."""

    steps: int
    """Steps that were done: recorded, or known to others."""
    completions: int
    """Rows that were trained on and count."""
    replaced: int
    """Positions that were sampled and then replaced by others (`rollout.replace_uniform_groups`)."""
    lost: tuple[int, ...]
    """Positions of which a completion is missing."""
    doubled: tuple[int, ...]
    """Positions of which a completion was counted more than once."""
    unexpected: tuple[int, ...]
    """Positions that these steps should not have reached."""

    @property
    def exact(self) -> bool:
        return not (self.lost or self.doubled or self.unexpected)


def current_rows(run_folder: Path, phase: Phase = "train", columns: list[str] | None = None) -> pa.Table:
    """All rows of a phase that count, by step; rows of superseded attempts are left out. RunError when a file is damaged."""
    tables = [file.read(columns) for file in current_files(run_folder, phase)]
    if tables:
        return pa.concat_tables(tables)
    return SCHEMA.empty_table() if columns is None else SCHEMA.empty_table().select(columns)


def read_groups(run_folder: Path, step: int, problems: Sequence[Problem]) -> list[Group]:
    """The groups that a step was trained on, in order, as good as new: training on them again gives the same update.

    `problems`: what `problem_index` counts in. RunError when the record does not hold that step, once and as it was written.
    """
    groups: dict[int, tuple[Problem, list[Completion], list[Verdict]]] = {}
    for row in _only_file(run_folder, step).read().to_pylist():
        problem = problems[row["problem_index"]]
        if problem.text != row["problem"]:
            raise RunError(f"the record of step {step} has another problem {row['problem_index']} than the run")
        _, completions, verdicts = groups.setdefault(row["position"], (problem, [], []))
        completions.append(
            Completion(
                position=row["position"],
                sample=row["sample"],
                token_ids=np.array(row["token_ids"], dtype=np.int32),
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
        Group(position, problem, tuple(completions), tuple(verdicts))
        for position, (problem, completions, verdicts) in groups.items()
    ]


def check_accounting(
    run_folder: Path, problems_per_step: int, completions_per_problem: int, staleness: int = 0, due: int = 0
) -> Accounting:
    """Count how often each (position, sample) was used: trained on, or replaced. RunError when a file is damaged.

    `due`: steps that others than the record know to be done; the record must have at least these.

    After s steps of P problems with r replaced ones these are the positions 0 .. s P + r - 1. Where rollouts run k versions
    ahead, k P positions may be still under way, and as many of the next k P have been used in their place. None of them was
    drawn before step s - k, unless a resume since then drew it again.
    """
    columns = ["step", "position", "sample"]
    rows = current_rows(run_folder, "train", columns)
    steps = max([due, *rows["step"].to_pylist()])
    others = [row for row in current_rows(run_folder, "replaced", columns).to_pylist() if row["step"] <= steps]
    replaced = {row["position"]: row["step"] for row in others}
    seen = Counter((row["position"], row["sample"]) for row in [*rows.to_pylist(), *others])
    used = {position for position, _ in seen}
    samples = range(completions_per_problem)

    def end(step: int) -> int:
        return int(step * problems_per_step + sum(at <= step for at in replaced.values()))

    settled = steps - staleness
    for resumed in sorted(read_attempts(run_folder).values(), reverse=True):
        if settled <= resumed < steps:
            settled = resumed - staleness
    certain, possible = range(end(settled)), range(end(steps) + staleness * problems_per_step)
    lost = {position for position in used | {*certain} if any((position, sample) not in seen for sample in samples)}
    if len(used) < end(steps):
        lost |= {*range(end(steps))} - used
    return Accounting(
        steps=steps,
        completions=rows.num_rows,
        replaced=len(replaced),
        lost=tuple(sorted(lost)),
        doubled=tuple(sorted({position for (position, _), times in seen.items() if times > 1})),
        unexpected=tuple(sorted({place for place, sample in seen if place not in possible or sample not in samples})),
    )


def _only_file(run_folder: Path, step: int) -> RecordFile:
    """File of the completions that a step was trained on. RunError unless there is exactly one, with a checksum."""
    files = [file for file in current_files(run_folder, "train") if file.step == step]
    if not files:
        raise RunError(f"the record in {run_folder / FOLDER} does not hold step {step}")
    if len(files) > 1:
        raise RunError(f"the record holds step {step} twice, in {' and '.join(file.path.name for file in files)}")
    if files[0].crc32 is None:
        raise RunError(f"{files[0].path} has no checksum, so step {step} is not trained again: go on with --resume")
    return files[0]


def _columns(completion: Completion, verdict: Verdict) -> dict[str, Any]:
    return {
        "position": completion.position,
        "sample": completion.sample,
        "token_ids": completion.token_ids.tolist(),
        "logprobs": completion.logprobs.tolist(),
        "reward": verdict.reward,
        "rewards": list(verdict.rewards.items()),
        "status": str(verdict.status),
        "answer": verdict.answer,
        "detail": verdict.detail,
        "finish_reason": completion.finish_reason,
        "length": len(completion.token_ids),
        "versions": [{"version": span.version, "start": span.start, "end": span.end} for span in completion.versions],
        "mean_logprob": _finite(completion.logprobs.mean()) if len(completion.logprobs) else None,
        "worker": completion.worker,
        "check_seconds": verdict.seconds,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
