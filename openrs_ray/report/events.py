"""Events of a run, from the logs of its attempts: starts, losses, warnings, decisions, evaluations, ends."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from openrs_ray.report.following import Following
from openrs_ray.run.log import FILE, FOLDER

Kind = Literal["start", "loss", "warning", "library", "decision", "evaluation", "end", "error", "note"]
MOST_EVENTS = 500
_LONGEST = 2000
_STEP = re.compile(r"step (\d+)/\d+\b")
_RESUMED = re.compile(r"resuming from step (\d+)")
_HEAD = re.compile(r"\[[^\]]*\] ")
_LOST = re.compile(r"\b(lost|died|replaced|rebuilt|killed|restart\w*|does not answer|disabled)\b", re.IGNORECASE)
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("start", re.compile(r"started on |resuming from |the run begins")),
    ("error", re.compile(r"error: ")),
    ("library", re.compile(r"(WARNING|ERROR|CRITICAL) [\w.]+: |\w+Warning: ")),
    ("decision", re.compile(r"(WARNING: )?(Guard|Stage|Reference): ")),
    ("warning", re.compile(r"WARNING: |warning: ")),
    ("evaluation", re.compile(r"held.out (accuracy|, )")),
    (
        "end",
        re.compile(r"SIG[A-Z]+: |run .* stopped after |stopping: |ending after |nothing is learned |Run .* stopped "),
    ),
)


@dataclass(slots=True)
class Event:
    time: str
    """ISO 8601, UTC."""
    attempt: int
    step: int
    """The last step that was finished."""
    kind: Kind
    text: str


@dataclass
class EventLog:
    """Follows the logs of a run's attempts."""

    run: Path
    events: list[Event] = field(default_factory=list)
    left_out: int = 0
    """Older events than the last `MOST_EVENTS`."""
    _logs: dict[Path, Following] = field(default_factory=dict)
    _step: int = 0

    def update(self) -> None:
        """Read what has been logged since the last time."""
        for path in sorted((self.run / FOLDER).glob(f"*/{FILE}")):
            for line in self._logs.setdefault(path, Following(path)).new_lines()[0]:
                self._add(int(path.parent.name) if path.parent.name.isdigit() else 0, line.decode(errors="replace"))
        surplus = max(0, len(self.events) - MOST_EVENTS)
        self.left_out += surplus
        del self.events[:surplus]

    def as_json(self) -> dict[str, Any]:
        return {"rows": [asdict(event) for event in self.events], "left_out": self.left_out}

    def _add(self, attempt: int, line: str) -> None:
        time, _, said = line.partition(" ")
        text = _HEAD.sub("", said, count=1)
        if step := _STEP.match(text):
            self._step = int(step[1])
            return
        if resumed := _RESUMED.match(text):
            self._step = int(resumed[1])
        kind = next((kind for kind, pattern in _KINDS if pattern.match(text)), None)
        if kind is not None:
            lost = kind == "warning" and _LOST.search(text)
            text = re.sub(r"^(WARNING|warning|error): ", "", text)
            self.events.append(Event(time, attempt, self._step, "loss" if lost else kind, text[:_LONGEST]))
        elif self.events and self.events[-1].time == time and said == text:  # a message of several lines
            self.events[-1].text = f"{self.events[-1].text}\n{text}"[:_LONGEST]
