"""The interface to a service for experiments, and the rows of its table of samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from openrs_ray.records import Group

PROJECT = "openrs_ray"
"""All runs' project, or experiment, where the environment names none."""


@dataclass(frozen=True, slots=True)
class SinkRun:
    """A run as a sink gets to know it."""

    name: str
    config: Mapping[str, Any]
    """Without secrets."""
    folder: Path
    """RUNS/NAME/sinks/SINK, for files of the sink's own; it exists."""
    remote: str
    """The service's name of the run, from an earlier attempt; empty at the first."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A completion to read."""

    step: int
    phase: str
    task: str
    problem: str
    gold: str
    text: str
    status: str
    reward: float | None
    length: int
    """Sampled tokens."""


class Sink(Protocol):
    """A service. Every method is called in one thread and may take long, raise, or hang: nobody waits for it."""

    where: str
    """Address of the remote run for people, once it is open."""

    def open(self, run: SinkRun) -> str:
        """Begin the remote run, or go on with it; its name for the next attempt."""

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures by name, such as train/reward. Example: sink.metrics(7, {"train/reward": 2.5, "train/attempt": 0})"""

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None: ...

    def close(self) -> None:
        """Send what is left, and end the remote run."""


def sample_rows(step: int, phase: str, groups: Sequence[Group], most: int) -> list[SampleRow]:
    """The first completion of each of the first groups."""
    return list(_rows(step, phase, groups[:most]))


def _rows(step: int, phase: str, groups: Sequence[Group]) -> Iterator[SampleRow]:
    for group in groups:
        problem, verdict, rollout = group.problem, group.verdicts[0], group.rollouts[0]
        yield SampleRow(
            step=step,
            phase=phase,
            task=problem.task,
            problem=problem.text,
            gold=", ".join(problem.gold),
            text=group.texts[0] if group.texts else "",
            status=str(verdict.status),
            reward=verdict.reward,
            length=rollout.sampled_tokens,
        )


def as_columns(rows: Sequence[SampleRow]) -> dict[str, list[Any]]:
    """The rows of a table by column."""
    records = [asdict(row) for row in rows]
    return {name: [record[name] for record in records] for name in (records[0] if records else ())}
