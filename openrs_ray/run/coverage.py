"""Proves that each position of a run's data order was used exactly once, by plausible rows.

`prove` checks every row and compares the record with its witnesses, which are written after a step's rows: metrics.jsonl,
result.json and the checkpoints' manifest.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.errors import RunError
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import Phase, RecordFile, current_files
from openrs_ray.run.completions import RESTED, current_rows
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.progress import read_result
from openrs_ray.run.rest_checks import rest_faults
from openrs_ray.run.row_checks import Expected, Fault, Row, faults, read_rows
from openrs_ray.run.stage_checks import SAMPLED_WITH, stage_faults, unfit

_PHASES: tuple[Phase, ...] = ("train", "replaced", "evaluation")
_OF_RESTS = ("solved", "visits", "last_epoch", "after_step")
_OF_LENGTHS = ("prompt_tokens", "min_prompt_tokens", "max_prompt_tokens")
"""Columns of positions passed over for one reason only."""


@dataclass(frozen=True, slots=True)
class Coverage:
    steps: int
    """Recorded, or known to the witnesses."""
    completions: int
    """Rows trained on."""
    replaced: int
    """Positions sampled, then replaced."""
    lost: tuple[int, ...]
    """Positions that lack a completion."""
    doubled: tuple[int, ...]
    """Positions with a completion that counts twice."""
    unexpected: tuple[int, ...]
    """Positions beyond these steps."""
    rested: int = 0
    """Positions passed over, their problems being at rest."""
    unfit: int = 0
    """Positions passed over, their prompts not fitting the stage."""

    @property
    def exact(self) -> bool:
        return not (self.lost or self.doubled or self.unexpected)


@dataclass(frozen=True, slots=True)
class UsedGroup:
    """Example: UsedGroup(7003, epoch=1, problem=512, phase="train", step=584, attempt=2, versions=(582, 583), completions=6)"""

    position: int
    epoch: int
    problem: int
    phase: Phase
    step: int
    attempt: int
    versions: tuple[int, ...]
    """Oldest and newest policy version; empty where no row says."""
    completions: int
    """None of a position that was passed over."""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    coverage: Coverage
    groups: list[UsedGroup]
    """By position and step."""
    misplaced: list[int]
    """Positions used with another problem than the order has."""
    rows: int
    unchecked: int
    """Files of older versions, without a checksum."""
    faults: dict[str, list[str]]
    """Places, by kind of fault."""

    @property
    def holds(self) -> bool:
        return self.coverage.exact and not self.misplaced and not self.faults

    @property
    def wrong_positions(self) -> dict[str, list[int]]:
        """By what is wrong with them; a kind without any has an empty list."""
        return {
            "lost": [*self.coverage.lost],
            "counted twice": [*self.coverage.doubled],
            "not due yet": [*self.coverage.unexpected],
            "with another problem than the order has": self.misplaced,
        }


@dataclass(frozen=True, slots=True)
class Witness:
    """Finished steps by the files beside the record."""

    due: int
    """Number of steps."""
    figures: dict[int, dict[str, Any]]
    """Lines of metrics.jsonl, by step."""

    @classmethod
    def of(cls, run_folder: Path) -> "Witness":
        figures = {line["step"]: line for line in read_metrics(run_folder)}
        result = read_result(run_folder)
        saved = [checkpoint.step for checkpoint in CheckpointStore(run_folder / "checkpoints").checkpoints()]
        return cls(max([0, *figures, *saved, *([result.step] if result else [])]), figures)

    def missing(self, steps: int) -> list[Fault]:
        """Steps without figures; a kill may come between the last one's rows and figures."""
        found = {*range(1, max(steps, self.due) + 1)} - {*self.figures, self.due + 1}
        return [("steps without a line in metrics.jsonl", f"step {step}") for step in sorted(found)]


def check_coverage(
    run_folder: Path, problems_per_step: int, completions_per_problem: int, staleness: int = 0, due: int = 0
) -> Coverage:
    """Count the uses of each (position, sample), with rollouts `staleness` versions ahead and `due` steps at least."""
    columns, resumed = ["step", "position", "sample", "phase"], read_attempts(run_folder).values()
    used = [row for phase in _PHASES[:2] for row in current_rows(run_folder, phase, columns).to_pylist()]
    return _coverage(used, read_rested(run_folder), resumed, problems_per_step, completions_per_problem, staleness, due)


def prove(run_folder: Path, config: RunConfig, problems: RunProblems) -> Proof:
    """Check the whole record, a step at a time. RunError about its first damaged file, UserError about other files."""
    witness = Witness.of(run_folder)  # before the record, which a run that goes on adds to first
    expected = Expected.of(run_folder, config, problems.texts)
    files = [file for phase in _PHASES for file in current_files(run_folder, phase)]
    used, found, count = list[Row](), list[Fault](), 0
    for step, rows in _steps(files):
        found += faults(step, rows, expected, witness.figures.get(step))
        count += sum(map(len, rows.values()))
        used += [_light(row) for file in rows if file.phase != "evaluation" for row in rows[file]]
    attempts = {file.step: file.attempt for file in files if file.phase == "train"}
    # The figures as they are now: a run that goes on has written more of both since the witness was called.
    found += Witness.of(run_folder).missing(max(attempts, default=0))
    by_kind: dict[str, list[str]] = defaultdict(list)
    for kind, place in found:
        by_kind[kind].append(place)
    order, rollout, rested = (
        Mixture.of(config.run.seed, config.tasks, problems.sizes),
        config.rollout,
        read_rested(run_folder),
    )
    per_step, samples = rollout.problems_per_step, rollout.completions_per_problem
    staleness = _staleness(attempts, expected)
    groups = sorted([*_used_groups(used, order), *_passed_over(rested, order)], key=lambda at: (at.position, at.step))
    at_rest = [row for row in rested if not unfit(row)]
    lengths = problems.prompt_tokens
    for kind, place in (
        *rest_faults(at_rest, used, config, order, expected),
        *stage_faults(rested, used, lengths, config, order, expected, Witness.of(run_folder).figures),
    ):
        by_kind[kind].append(place)
    return Proof(
        coverage=_coverage(used, rested, read_attempts(run_folder).values(), per_step, samples, staleness, witness.due),
        groups=groups,
        misplaced=[group.position for group in groups if group.problem != order.index(group.position)],
        rows=count,
        unchecked=sum(file.crc32 is None for file in files),
        faults=dict(by_kind),
    )


def _steps(files: Sequence[RecordFile]) -> Iterator[tuple[int, dict[RecordFile, list[Row]]]]:
    """The rows of each step, by file. RunError at the end when files are damaged."""
    damages: list[str] = []
    for step in sorted({file.step for file in files}):
        rows = {}
        for file in (file for file in files if file.step == step):
            try:
                rows[file] = read_rows(file)
            except RunError as error:
                damages.append(str(error))
        if not damages:
            yield step, rows
    if damages:
        more = f" (and {len(damages) - 1} more files)" if len(damages) > 1 else ""
        raise RunError(f"{damages[0]}{more}: what was trained on cannot be proven")


def read_rested(run_folder: Path) -> list[Row]:
    """Positions that were passed over. RunError where a file is damaged."""
    return [row for file in current_files(run_folder, "rested") for row in _rested_rows(file)]


def _rested_rows(file: RecordFile) -> list[Row]:
    rows: list[Row] = file.read(RESTED.names, RESTED).to_pylist()
    for row in rows:
        others = _OF_RESTS if unfit(row) else _OF_LENGTHS
        if missing := [name for name in RESTED.names if name not in others and row[name] is None]:
            raise RunError(f"{file.path} has rows without {missing[0]}")
    return rows


def _coverage(
    rows: Sequence[Row],
    passed: Sequence[Row],
    resumed: Iterable[int],
    per_step: int,
    samples_each: int,
    staleness: int,
    due: int,
) -> Coverage:
    """Coverage by the rows that count; `resumed`: the steps that attempts started from.

    After s steps of P problems with r replaced ones and q passed over, positions 0 .. s P + r + q - 1 are used. With rollouts k
    versions ahead, k P of them may be still under way, and as many of the next k P used instead. None of those was drawn before
    step s - k, unless a later resume drew it again.
    """
    trained = [row for row in rows if row["phase"] == "train"]
    steps = max([due, *(row["step"] for row in trained)])
    others = [row for row in rows if row["phase"] == "replaced" and row["step"] <= steps]
    replaced_at = {row["position"]: row["step"] for row in others}
    seen = Counter((row["position"], row["sample"]) for row in [*trained, *others])
    over = Counter(row["position"] for row in passed if row["step"] <= steps)
    by_length = len({row["position"] for row in passed if row["step"] <= steps and unfit(row)})
    besides = sorted([*replaced_at.values(), *(row["step"] for row in passed)])
    sampled = {position for position, _ in seen}
    used, samples = sampled | over.keys(), range(samples_each)

    def end(step: int) -> int:
        return step * per_step + bisect_right(besides, step)

    settled = steps - staleness
    for start in sorted(resumed, reverse=True):
        if settled <= start < steps:
            settled = start - staleness
    certain, possible = range(end(settled)), range(end(steps) + staleness * per_step)
    asked = sampled | ({*certain} - over.keys())
    lost = {position for position in asked if any((position, sample) not in seen for sample in samples)}
    if len(used) < end(steps):
        lost |= {*range(end(steps))} - used
    return Coverage(
        steps=steps,
        completions=len(trained),
        replaced=len(replaced_at),
        lost=tuple(sorted(lost)),
        doubled=tuple(
            sorted(
                {position for (position, _), times in seen.items() if times > 1}
                | {position for position, times in over.items() if times > 1 or position in sampled}
            )
        ),
        unexpected=tuple(
            sorted(
                {place for place, sample in seen if place not in possible or sample not in samples}
                | {place for place in over if place not in possible}
            )
        ),
        rested=len(over) - by_length,
        unfit=by_length,
    )


def _light(row: Row) -> Row:
    names = ("position", "sample", "step", "attempt", "phase", "problem_index", "versions", "status", "tokens")
    return {name: row[name] for name in (*names, *SAMPLED_WITH)}


def _passed_over(rested: Sequence[Row], order: Mixture) -> Iterator[UsedGroup]:
    for row in rested:
        place = order.place(row["position"])
        named = row["position"], place.epoch, row["problem_index"]
        yield UsedGroup(*named, "rested", row["step"], row["attempt"], (), 0, place.task)


def _used_groups(used: Sequence[Row], order: Mixture) -> list[UsedGroup]:
    steps = {row["step"] for row in used if row["phase"] == "train"}
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in used:
        if row["step"] in steps:  # what a step replaced is written before the rest of it
            groups[row["position"], row["step"]].append(row)
    return [_group(groups[place], order) for place in sorted(groups)]


def _group(rows: Sequence[Row], order: Mixture) -> UsedGroup:
    first, versions = rows[0], [span["version"] for row in rows for span in row["versions"]]
    place = order.place(first["position"])
    return UsedGroup(
        position=first["position"],
        epoch=place.epoch,
        problem=first["problem_index"],
        phase=first["phase"],
        step=first["step"],
        attempt=first["attempt"],
        versions=(min(versions), max(versions)) if versions else (),
        completions=len(rows),
        task=place.task,
    )


def _staleness(attempts: Mapping[int, int], expected: Expected) -> int:
    """Staleness of the last steps' rollouts. `attempts`: by step."""
    allowed = {step: expected.settings(attempt).staleness for step, attempt in attempts.items()}
    reach = max(attempts, default=0) - max(allowed.values(), default=0)
    return max((staleness for step, staleness in allowed.items() if step >= reach), default=0)
