"""`python -m launch.trace RUN [--step N] [--perfetto FILE]`: where a run's time went, stage by stage, and what bounds its steps.

Reads the spans that every process of the run recorded. A row's seconds are those of a step in which the stage was under way, in
any process; rows with a dash happen within the one above them. `--perfetto` writes the spans for ui.perfetto.dev.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.cli.command import command
from launch.cli.numbers import positive
from launch.cli.options import Parser
from openrs_ray.common.console import json_output, say, show_table
from openrs_ray.common.files import write_json
from openrs_ray.config.names import find_run
from openrs_ray.errors import UserError
from openrs_ray.run.trace import DRIVER, SAMPLING, STAGES, WAITS, Event, Step, chrome_trace, read_trace, steps_of

_WARM_UP = 2
"""First steps, which compile and fill caches."""
_SHOWN = ("rank", "position", "sample", "tokens", "micro_batch", "bucket", "completions", "method")
"""Attributes that tell the slowest of many spans, in this order."""
_SUBJECTS = {
    "train": "The learner",
    "push": "The weight push",
    "write": "Writing the record",
    "save": "Saving checkpoints",
    "evaluate": "Evaluating",
}


@command
def main(arguments: list[str]) -> None:
    parser = Parser("trace", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    parser.add_argument("--attempt", type=int, metavar="N", help="of this start of the run (default: the newest)")
    parser.add_argument("--step", type=int, metavar="N", help="of this step alone")
    parser.add_argument("--last", type=positive, default=20, metavar="N", help="of the last N steps (default: 20)")
    perfetto = "write the spans for ui.perfetto.dev to this file"
    parser.add_argument("--perfetto", type=Path, metavar="FILE", help=perfetto)
    parser.add_json()
    options = parser.parse_args(arguments)
    run = find_run(options.run)
    events = read_trace(run, options.attempt)
    steps = chosen(steps_of(events), options.step, options.last)
    console = Console(highlight=False)
    with json_output(options.json) as document:
        if options.json:
            document(as_json(steps, run))
        else:
            _show(console, steps, run)
        if options.perfetto:
            _write(options.perfetto, events if options.step is None else steps[0].events)
            say(console, f"Written to {options.perfetto}: open it at ui.perfetto.dev.")


def _show(console: Console, steps: Sequence[Step], run: Path) -> None:
    numbers = f"Steps {steps[0].number} to {steps[-1].number}" if len(steps) > 1 else f"Step {steps[0].number}"
    show_table(console, table(steps, f"{numbers} of {run.name}: median seconds per step (smallest to largest)"))
    for line in (*idle_lines(steps), diagnosis(steps)):
        say(console, line)


def chosen(steps: Sequence[Step], number: int | None, last: int) -> list[Step]:
    """The step of this number, or the last ones after the warm-up."""
    found = [step for step in steps if step.number == number] if number is not None else list(steps)
    if not found:
        names = f"the trace has steps {steps[0].number} to {steps[-1].number}" if steps else "no step has been finished"
        raise UserError(f"no step {number} to show: {names}" if number is not None else f"nothing to show: {names} yet")
    return found if number is not None else (found[_WARM_UP:] or found)[-last:]


@dataclass(frozen=True)
class Row:
    """A stage, or a part of the last stage above it that is none."""

    name: str
    kind: str
    """Of the processes that it is in."""
    seconds: Sequence[float]
    """Of each step."""
    events: Sequence[Event] = ()
    is_part: bool = False

    def share(self, steps: Sequence[Step]) -> float:
        return median(value / step.seconds for value, step in zip(self.seconds, steps, strict=True))


def rows(steps: Sequence[Step]) -> Iterator[Row]:
    causes = [step.causes() for step in steps]

    def parts(stage: str) -> Iterator[Row]:
        for name, kind in sorted(_parts(steps, stage), key=lambda part: _first(steps, *part)):
            yield Row(name, kind, _busy(steps, name, kind), _events(steps, name, kind), is_part=True)

    yield Row("step", DRIVER, [step.seconds for step in steps])
    for stage in STAGES:
        if events := _events(steps, stage, DRIVER):
            yield Row(stage, DRIVER, _busy(steps, stage, DRIVER), events)
        if stage == "take":
            for wait in WAITS:
                yield Row(f"waits for {wait}", DRIVER, [found[wait] for found in causes], is_part=True)
        yield from parts(stage)
    yield Row("other", DRIVER, [found["other"] for found in causes], _events(steps, "other", DRIVER))
    yield from parts("other")


def table(steps: Sequence[Step], title: str) -> Table:
    """A row per stage: seconds, share, spans, the slowest span."""
    shown = Table(title=title)
    for heading in ("stage", "in", "seconds", "share", "spans per step", "slowest"):
        shown.add_column(heading, justify="right" if heading in ("share", "spans per step") else "left")
    for row in rows(steps):
        least, middle, most = min(row.seconds), median(row.seconds), max(row.seconds)
        spread = f"{middle:.3f}" + (f" ({least:.3f} to {most:.3f})" if len(steps) > 1 else "")
        count = f"{len(row.events) / len(steps):.3g}" if row.events else ""
        slowest = _slowest(steps, row.events) if row.events else ""
        shown.add_row(f"{'- ' * row.is_part}{row.name}", row.kind, spread, f"{row.share(steps):.1%}", count, slowest)
    return shown


def as_json(steps: Sequence[Step], run: Path) -> dict[str, Any]:
    """The table's content; seconds are medians over the steps, shares those of a step."""
    stages: list[dict[str, Any]] = []
    for row in rows(steps):
        content = {
            "name": row.name,
            "process": row.kind,
            "seconds": median(row.seconds),
            "smallest_seconds": min(row.seconds),
            "largest_seconds": max(row.seconds),
            "share": row.share(steps),
            "spans_per_step": len(row.events) / len(steps),
            "slowest": _slowest_as_json(row.events),
        }
        if row.is_part:
            stages[-1]["parts"].append(content)
        else:
            stages.append(content | {"parts": []})
    processes = sorted({event.process for step in steps for event in step.events} - {DRIVER})
    return {
        "run": run,
        "steps": [step.number for step in steps],
        "stages": stages,
        "idle_share": {process: median(step.idle(process) for step in steps) for process in processes},
        "diagnosis": diagnosis(steps),
    }


def _slowest_as_json(events: Sequence[Event]) -> dict[str, Any] | None:
    if not events:
        return None
    slowest = max(events, key=lambda event: event.seconds)
    return {"seconds": slowest.seconds, "process": slowest.process, "attributes": slowest.attributes}


def _busy(steps: Sequence[Step], name: str, kind: str) -> list[float]:
    return [step.busy(step.of(name, kind=kind)) for step in steps]


def _events(steps: Sequence[Step], name: str, kind: str) -> list[Event]:
    """Spans that ended in one of these steps."""
    return [event for step in steps for event in step.of(name, kind=kind) if event.end <= step.end]


def _first(steps: Sequence[Step], name: str, kind: str) -> tuple[float, str]:
    begins = [found[0].start - step.start for step in steps if (found := step.of(name, kind=kind))]
    return median(begins), name


def _parts(steps: Sequence[Step], stage: str) -> set[tuple[str, str]]:
    """(name, kind of process) of the spans that lie mostly within a stage."""
    kinds = {(event.name, event.kind) for step in steps for event in step.events}
    return {part for part in kinds if _stage_of(steps, *part) == stage}


def _stage_of(steps: Sequence[Step], name: str, kind: str) -> str | None:
    if name == "step" or (kind == DRIVER and name in STAGES):
        return None
    if name in SAMPLING or name == "judge":
        return "take"  # though they may go on beside all others

    parts = [step.of(name, kind=kind) for step in steps]

    def shared(stage: str) -> float:
        return sum(
            max(0.0, min(part.end, whole.end) - max(part.start, whole.start))
            for step, of_step in zip(steps, parts, strict=True)
            for whole in step.of(stage, kind=DRIVER)
            for part in of_step
        )

    best = max(STAGES, key=shared)
    return best if shared(best) > 0 else "other"


def _slowest(steps: Sequence[Step], events: Sequence[Event]) -> str:
    slowest = max(events, key=lambda event: event.seconds)
    (step, *_) = [step for step in steps if slowest in step.events]
    return f"{slowest.seconds:.3g} s in step {step.number}{_which(slowest)}"


def _which(event: Event) -> str:
    """Example: " (engine-1, position 40, sample 3, tokens 1024)" """
    shown = [f"{name} {event.attributes[name]}" for name in _SHOWN if name in event.attributes]
    where = [] if event.process == DRIVER else [event.process]
    return f" ({', '.join([*where, *shown])})" if where or shown else ""


def idle_lines(steps: Sequence[Step]) -> list[str]:
    """A line per kind of process."""
    shares: dict[str, list[str]] = {}
    for process in sorted({event.process for step in steps for event in step.events} - {DRIVER}):
        idle = median(step.idle(process) for step in steps)
        shares.setdefault(process.split("-")[0], []).append(f"{process} {idle:.0%} of a step")
    return [f"Nothing to do: {', '.join(shares[kind])}." for kind in sorted(shares)]


def diagnosis(steps: Sequence[Step]) -> str:
    """One sentence: what bounds the step, how much of it, and the span that shows it best."""
    causes = [step.causes() for step in steps]
    shares = {
        cause: median(found[cause] / step.seconds for found, step in zip(causes, steps, strict=True))
        for cause in causes[0]
    }
    cause = max(shares, key=shares.__getitem__)
    share, worst = f"{shares[cause]:.0%}", max(steps, key=lambda step: step.causes()[cause])
    match cause:
        case "completions":
            return f"Sampling bounds the step: {share} of it waits for completions{_tail(worst)}{_queue(steps)}."
        case "verdicts":
            call = max(worst.of("judge", kind=DRIVER), key=lambda event: event.seconds)
            return (
                f"The reward pool bounds the step: {share} of it waits for verdicts when all completions have ended; the slowest "
                f"call of step {worst.number} took {call.seconds:.3g} s{_which(call)}."
            )
        case "other":
            return f"None of the stages bounds the step: {share} of it is in the driver between them; --perfetto shows where."
        case _:
            return f"{_SUBJECTS[cause]} bounds the step: {share} of it goes to {cause}{_largest_part(cause, steps)}."


def _tail(step: Step) -> str:
    """The last completion of a step against the median one."""
    asked = step.positions
    own = [event for event in step.of("decode") if not asked or event.attributes.get("position") in asked]
    if not own:
        return ""
    last, middle = max(own, key=lambda event: event.end), median(event.end for event in own)
    return f"; the last completion of step {step.number}{_which(last)} ended {last.end - middle:.2g} s after the median one"


def _queue(steps: Sequence[Step]) -> str:
    """Clause about requests that wait for an engine more than a third of their life."""
    spent = {name: sum(event.seconds for event in _events(steps, name, "engine")) for name in SAMPLING}
    share = spent["queue"] / (sum(spent.values()) or 1.0)
    if share <= 1 / 3:
        return ""
    return f"; requests wait {share:.0%} of their time for a place in an engine (engine.max_sequences)"


def _largest_part(stage: str, steps: Sequence[Step]) -> str:
    whole = sum(step.stage(stage) for step in steps)
    parts = {part: sum(_busy(steps, *part)) / whole for part in _parts(steps, stage)} if whole else {}
    if not parts:
        return ""
    name, kind = max(parts, key=parts.__getitem__)
    slowest = _slowest(steps, _events(steps, name, kind))
    return f", and {min(1.0, parts[name, kind]):.0%} of that to {name} (the slowest: {slowest})"


def _write(path: Path, events: Sequence[Event]) -> None:
    try:
        write_json(path, chrome_trace(events))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
