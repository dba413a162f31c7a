"""Where the time went: stages of each step, utilisation of each process, and the spans of the last steps."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from openrs_ray.common.foreign import parse_json
from openrs_ray.run.log import FOLDER as ATTEMPTS
from openrs_ray.run.spans import FOLDER
from openrs_ray.run.trace import DRIVER, SAMPLING, STAGES, Event, Step, event_of, steps_of

MOST_STEPS = 200
"""Bars of stages, from the figures of the steps."""
_TRACED_STEPS = 20
_SHOWN_STEPS = 5
_MOST_BARS = 3000
_TAIL_BYTES = 2 << 20
"""Of each process, some 20 steps of a small run."""
_COUNTS = 400
"""Points of the curve of sequences in flight."""
_PER_COMPLETION = {*SAMPLING, "rollout", "group", "admit"}
"""Spans by the hundred, drawn as a number in flight."""
_CHARACTERS = 80


def stages(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Seconds by stage of the last steps, from their figures."""
    last = [line for line in lines if line.get("step_s")][-MOST_STEPS:]
    parts = {name: [float(line.get(f"{name}_s") or 0.0) for line in last] for name in ("collect", "train", "push")}
    rest = [
        max(0.0, float(line["step_s"]) - sum(parts[name][place] for name in parts)) for place, line in enumerate(last)
    ]
    rounded = {name: [round(value, 4) for value in values] for name, values in (parts | {"other": rest}).items()}
    return {"step": [line["step"] for line in last], **rounded}


def traced(run: Path) -> dict[str, Any] | None:
    """Causes, utilisation and spans of the newest attempt's last steps; None where it has no whole step."""
    found = _newest(run)
    if found is None:
        return None
    attempt, files = found
    events, since = _read(files)
    steps = [step for step in steps_of(events) if step.start >= since and step.seconds > 0][-_TRACED_STEPS:]
    if not steps:
        return None
    return {
        "attempt": attempt,
        "steps": [step.number for step in steps],
        "causes": _causes(steps),
        "processes": _utilisation(steps),
        "timeline": timeline(steps[-_SHOWN_STEPS:]),
    }


def _newest(run: Path) -> tuple[int, list[Path]] | None:
    for folder in sorted((run / ATTEMPTS).glob(f"*/{FOLDER}"), reverse=True):
        if files := sorted(folder.glob("*.jsonl")):
            return int(folder.parent.name), files
    return None


def _read(files: Iterable[Path]) -> tuple[list[Event], float]:
    """Events by start, and the time from which on no process lacks any."""
    events: list[Event] = []
    since = 0.0
    for path in files:
        if path.name.endswith(".old.jsonl"):
            continue
        own, cut = _tail(path)
        if (cut or path.with_suffix(".old.jsonl").exists()) and own:
            since = max(since, min(event.end for event in own))
        events += own
    return sorted(events, key=lambda event: event.start), since


def _tail(path: Path) -> tuple[list[Event], bool]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().splitlines()[int(size > _TAIL_BYTES) :]
    process = path.name.removesuffix(".jsonl")
    found = (event_of(process, _parsed(line)) for line in lines)
    return [event for event in found if event is not None], size > _TAIL_BYTES


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:  # torn by a kill, or being written
        return None


def _causes(steps: Sequence[Step]) -> dict[str, list[float]]:
    """Seconds of each step by what the loop did or waited for."""
    found = [step.causes() for step in steps]
    return {cause: [round(each[cause], 4) for each in found] for cause in found[0]}


def _utilisation(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Median share of a step in which each process was busy."""
    processes = sorted({event.process for step in steps for event in step.events} - {DRIVER})
    return [
        {"process": process, "busy": round(1 - median(step.idle(process) for step in steps), 4)}
        for process in processes
    ]


def timeline(steps: Sequence[Step]) -> dict[str, Any]:
    """Bars of every process, in milliseconds after the first step's start, and how many completions were in flight.

    {"steps": [[number, start, end]], "names": [...], "left_out": 0, "processes": [{"process", "rows", "running": {"t", "n"} or
    None, "bars": [[start, length, place in names, row, text]]}]}; the shortest bars are left out where there are too many.
    """
    begin, end = steps[0].start, steps[-1].end
    events = {id(event): event for step in steps for event in step.events}.values()
    bars = [event for event in events if event.name not in _PER_COMPLETION and event.end > begin]
    shown = sorted(bars, key=lambda event: -event.seconds)[:_MOST_BARS]
    names = [name for name, _ in Counter(event.name for event in shown).most_common()]
    order = sorted({event.process for event in events}, key=lambda process: (process != DRIVER, process))
    return {
        "steps": [[step.number, _ms(step.start, begin), _ms(step.end, begin)] for step in steps],
        "names": names,
        "processes": [
            _track(process, [event for event in shown if event.process == process], names, begin)
            | {"running": _running([event for event in events if event.process == process], begin, end)}
            for process in order
        ],
        "left_out": len(bars) - len(shown),
    }


def _ms(time: float, begin: float) -> float:
    return round(1000 * (time - begin), 2)


def _track(process: str, events: Sequence[Event], names: Sequence[str], begin: float) -> dict[str, Any]:
    rows = [*_rows(events)]
    bars = [
        [_ms(event.start, begin), round(1000 * event.seconds, 2), names.index(event.name), row, _text(event)]
        for event, row in rows
    ]
    return {"process": process, "rows": 1 + max((row for _, row in rows), default=-1), "bars": bars}


def _rows(events: Sequence[Event]) -> Iterator[tuple[Event, int]]:
    """Every event with its row: of the driver steps, then stages; then the first in which nothing else is under way."""
    fixed = {"step": 0, **dict.fromkeys(STAGES, 1)} if any(event.process == DRIVER for event in events) else {}
    ends: list[float] = [math.inf] * (2 if fixed else 0)
    for event in sorted(events, key=lambda event: (event.start, -event.end)):
        row = fixed.get(event.name)
        if row is None:
            row = next((row for row, end in enumerate(ends) if end <= event.start), len(ends))
            ends[row:] = [event.end, *ends[row + 1 :]]
        yield event, row


def _text(event: Event) -> str:
    """Example: "step 7, rank 0" """
    shown = [f"{name} {value}" for name, value in event.attributes.items() if isinstance(value, int | float | str)]
    return ", ".join(shown)[:_CHARACTERS]


def _running(events: Sequence[Event], begin: float, end: float) -> dict[str, Any] | None:
    """Completions being sampled, at even distances; None for a process that samples none."""
    own = [event for event in events if event.name in ("prefill", "decode")]
    if not own:
        return None
    times = [begin + (end - begin) * place / _COUNTS for place in range(_COUNTS + 1)]
    counts = [0] * len(times)
    width = (end - begin) / _COUNTS
    for event in own:
        first, last = (max(0, int((at - begin) / width) + 1) for at in (event.start, event.end))
        for place in range(first, min(last, _COUNTS + 1)):
            counts[place] += 1
    return {"t": [_ms(time, begin) for time in times], "n": counts}
