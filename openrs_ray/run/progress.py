"""A run's progress, in every checkpoint and in its result."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrs_ray.common.files import as_record, damaged, read_json
from openrs_ray.data.rests import Streak
from openrs_ray.run.budget import Ended
from openrs_ray.run.step_settings import Changes
from openrs_ray.stats import Interval, TaskScore

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress after a whole number of steps."""

    step: int = 0
    position: int = 0
    """First position of the next step: all below have been trained on, replaced or passed over."""
    ahead: tuple[int, ...] = ()
    """Positions above it already used, in order; none where all steps were synchronous."""
    tokens: int = 0
    correct: int = 0
    seconds: float = 0.0
    """Wall time of all steps."""
    before: Interval | None = None
    """Held-out accuracy of the start model, over all tasks."""
    after: Interval | None = None
    """Held-out accuracy after the newest step; None where that was not evaluated."""
    tasks_before: dict[str, TaskScore] = field(default_factory=dict)
    """The same by task, where there are several, or none with right and wrong answers."""
    tasks_after: dict[str, TaskScore] = field(default_factory=dict)
    evaluated: int | None = None
    """Step of the last evaluation."""
    held_out: int = 0
    ended: Ended | None = None
    """None while the run goes on."""
    why: str = ""
    """A sentence about the limit of `cost` that ended it."""
    changes: Changes = field(default_factory=Changes)
    """Made by the run itself."""
    streaks: dict[int, Streak] = field(default_factory=dict)
    """Of problems that may come to rest (`data.rest_after`)."""

    @classmethod
    def read(cls, state: dict[str, Any], origin: Path) -> "Progress":
        """UserError when the file `origin` is damaged."""
        progress = as_record(cls, state, origin)
        if "step" not in state or progress.step < 0:
            raise damaged(origin, "it has no step")
        return progress

    def used(self, positions: Iterable[int]) -> "Progress":
        position, ahead = self.position, {*self.ahead, *positions}
        while position in ahead:
            ahead.remove(position)
            position += 1
        return replace(self, position=position, ahead=tuple(sorted(ahead)))


def read_result(run_folder: Path) -> Progress | None:
    """Progress at the run's end. UserError when the file is damaged."""
    content = read_json(run_folder / RESULT)
    return None if content is None else Progress.read(content, run_folder / RESULT)
