"""Reads an attempt's trace: spans, steps, and where each step's time went.

A step lasts until the next one begins: a checkpoint or an evaluation counts to the step before it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.common.files import read_lines
from openrs_ray.errors import UserError
from openrs_ray.run.log import FOLDER as ATTEMPTS
from openrs_ray.run.spans import FOLDER

DRIVER = "driver"
STAGES = ("take", "train", "push", "write", "save", "evaluate")
"""Consecutive stages of the loop, in the driver."""
SAMPLING = ("queue", "prefill", "decode")
WAITS = ("completions", "verdicts")
"""Waits of `take`."""
_ROUNDING_S = 1e-6
"""Resolution of a wall clock in float64."""


@dataclass(frozen=True, slots=True)
class Event:
    """Times in seconds of the wall clock."""

    name: str
    process: str
    pid: int
    start: float
    end: float
    attributes: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Example: "engine" for "engine-3" """
        return self.process.split("-")[0]

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Step:
    """A step of the loop, and every span that overlaps with it."""

    number: int
    start: float
    end: float
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def busy(self, events: Iterable[Event]) -> float:
        """Seconds in which at least one of these spans was under way."""
        return covered((max(event.start, self.start), min(event.end, self.end)) for event in events)

    def of(self, *names: str, kind: str | None = None) -> list[Event]:
        return [event for event in self.events if event.name in names and kind in (None, event.kind)]

    def stage(self, name: str) -> float:
        return self.busy(self.of(name, kind=DRIVER))

    def idle(self, process: str) -> float:
        """Share of the step in which a process had nothing to do."""
        return 1 - self.busy(event for event in self.events if event.process == process) / self.seconds

    @property
    def positions(self) -> set[int]:
        taken = self.of("take", kind=DRIVER)
        return {position for event in taken for position in event.attributes.get("positions", ())}

    def causes(self) -> dict[str, float]:
        """Seconds of the step by what the loop did or waited for.

        A group waits for completions until its last call to the reward pool begins, then for a verdict. The loop waits for
        completions as long as one of the step's groups does.
        """
        found = {name: self.stage(name) for name in STAGES if name != "take"}
        take, last_call, last_verdict = self.of("take", kind=DRIVER), self.start, self.start
        ends = max((event.end for event in take), default=self.start)
        for event in self.of("judge", kind=DRIVER):
            if event.end <= ends and (not self.positions or self.positions & {*event.attributes.get("positions", ())}):
                last_call, last_verdict = max(last_call, event.start), max(last_verdict, event.end)
        waits = [(event.start, event.end) for event in take]
        found["completions"] = covered((start, min(end, last_call)) for start, end in waits)
        found["verdicts"] = covered((max(start, last_call), min(end, last_verdict)) for start, end in waits)
        found["other"] = max(0.0, self.seconds - sum(found.values()))
        return found


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def read_trace(run_folder: Path, attempt: int | None = None) -> list[Event]:
    """Spans by start, of the newest attempt that has any by default. UserError where there are none."""
    which = "*" if attempt is None else f"{attempt:03d}"
    for folder in sorted((run_folder / ATTEMPTS).glob(f"{which}/{FOLDER}"), reverse=True):
        if events := [event for file in sorted(folder.glob("*.jsonl")) for event in _events(file)]:
            return sorted(events, key=lambda event: event.start)
    asked = "" if attempt is None else f" of attempt {attempt}"
    there = run_folder / ATTEMPTS
    look = f"look at {there} for attempts that have one" if there.is_dir() else "it is no run that has started"
    raise UserError(f"{run_folder} has no trace{asked}: {look}")


def _events(file: Path) -> Iterator[Event]:
    process = file.name.removesuffix(".jsonl").removesuffix(".old")
    for line in read_lines(file):
        if event := event_of(process, line):
            yield event


def event_of(process: str, line: Any) -> Event | None:
    """The event in a line of a trace; None where it is none."""
    match line:
        case {"name": str(name), "ts": int() | float() as ts, "dur": int() | float() as dur, "args": dict(given)}:
            return Event(name, process, int(line.get("pid", 0)), ts / 1e6, (ts + dur) / 1e6, given)
    return None


def steps_of(events: Sequence[Event]) -> list[Step]:
    """Finished steps, in order; the last one lasts until the driver's last span ends."""
    driver = [event for event in events if event.process == DRIVER]
    begun = [event for event in driver if event.name == "step"]
    finished = [event for event in begun if "error" not in event.attributes]
    ends = []
    for event in finished:
        after = [other.start for other in begun if other.start > event.start]
        ends.append(min(after) if after else max(other.end for other in driver if other.start >= event.start))
    inside: list[list[Event]] = [[] for _ in finished]
    for event in events:
        number = bisect_right(ends, event.start)
        while number < len(finished) and finished[number].start < event.end:
            inside[number].append(event)
            number += 1
    return [
        Step(int(event.attributes["step"]), event.start, end, tuple(own))
        for event, end, own in zip(finished, ends, inside, strict=True)
    ]


def chrome_trace(events: Sequence[Event]) -> dict[str, Any]:
    """A file for Perfetto and chrome://tracing: a track per process, lanes where spans overlap."""
    processes = sorted({(event.process, event.pid) for event in events}, key=lambda key: (key[0] != DRIVER, key))
    lines: list[dict[str, Any]] = []
    for number, key in enumerate(processes):
        name = f"{key[0]} (pid {key[1]})"
        lines.append({"name": "process_name", "ph": "M", "pid": number, "args": {"name": name}})
        own = [event for event in events if (event.process, event.pid) == key]
        for event, lane in _lanes(own):
            where = {"pid": number, "tid": lane, "ts": 1e6 * event.start, "dur": 1e6 * event.seconds}
            lines.append({"name": event.name, "ph": "X", "args": event.attributes} | where)
    return {"traceEvents": lines, "displayTimeUnit": "ms"}


def _lanes(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Every event with the first lane in which it follows or lies within the others."""
    lanes: list[list[float]] = []
    for event in sorted(events, key=lambda event: (event.start, -event.end)):
        for ends in lanes:
            while ends and ends[-1] <= event.start + _ROUNDING_S:
                ends.pop()
        lane = next((i for i, ends in enumerate(lanes) if not ends or event.end <= ends[-1] + _ROUNDING_S), len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(event.end)
        yield event, lane
