"""Attempts: the driver's starts of one run, each noted in `attempts.jsonl` before it writes anything else."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openrs_ray.common.files import append_line, as_record, damaged, read_lines
from openrs_ray.config.schema import RunConfig

FILE = "attempts.jsonl"
_ATTEMPT = re.compile(r"-attempt-(\d+)\b")


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """Settings of an attempt that its rows follow from, and that a resume may change."""

    staleness: int
    replaced_per_step: int
    likelihoods: bool
    """True where log-probabilities are of the sampled distribution."""
    without_truncated: bool
    """True where completions cut at the limit have no advantage (`loss.truncated_completions`)."""

    @classmethod
    def of(cls, config: RunConfig) -> "AttemptSettings":
        rollout, loss = config.rollout, config.loss
        return cls(
            staleness=rollout.staleness,
            replaced_per_step=rollout.most_drawn_per_step - rollout.problems_per_step,
            likelihoods=loss.tempered or all(stage.temperature == 1.0 for stage in rollout.each_stage),
            without_truncated=loss.truncated_completions == "leave_out",
        )


def start_attempt(run_folder: Path, from_step: int, settings: AttemptSettings | None = None) -> int:
    """Note a start from the checkpoint of `from_step` (0: the start model); returns the attempt's number."""
    attempt = next_attempt(run_folder)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"attempt": attempt, "from_step": from_step, "started": started} | (asdict(settings) if settings else {})
    append_line(run_folder / FILE, record, synced=True)
    return attempt


def next_attempt(run_folder: Path) -> int:
    """One more than the largest number in the file and in the record's names."""
    recorded = (int(match[1]) for file in run_folder.glob("completions/*") if (match := _ATTEMPT.search(file.name)))
    return max([0, *read_attempts(run_folder), *recorded]) + 1


def read_attempts(run_folder: Path) -> dict[int, int]:
    """Each attempt's `from_step`. UserError when the file is damaged."""
    return {attempt: line["from_step"] for attempt, line in _lines(run_folder).items()}


def read_settings_of_attempts(run_folder: Path, present: AttemptSettings) -> dict[int, AttemptSettings]:
    """Settings by attempt; `present` ones stand in for what an older version did not note."""
    return {
        attempt: as_record(
            AttemptSettings, {name: line.get(name, now) for name, now in asdict(present).items()}, run_folder / FILE
        )
        for attempt, line in _lines(run_folder).items()
    }


def _lines(run_folder: Path) -> dict[int, dict[str, Any]]:
    lines: dict[int, dict[str, Any]] = {}
    for line in read_lines(run_folder / FILE):
        attempt, from_step = line.get("attempt"), line.get("from_step")
        if not (isinstance(attempt, int) and isinstance(from_step, int) and attempt > 0 <= from_step):
            raise damaged(run_folder / FILE, "a line has no attempt and step")
        if attempt in lines:
            raise damaged(run_folder / FILE, f"attempt {attempt} stands in it twice")
        lines[attempt] = line
    return lines


def superseded(attempts: Mapping[int, int], attempt: int, step: int) -> bool:
    """True if a later attempt, from a checkpoint before `step`, did it again."""
    return any(later > attempt and from_step < step for later, from_step in attempts.items())
