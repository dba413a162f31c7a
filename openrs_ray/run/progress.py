"""Where a run is: what every checkpoint and its result say of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openrs_ray.common.files import as_record, damaged, read_json
from openrs_ray.run.budget import Ended
from openrs_ray.stats import Interval

RESULT = "result.json"
"""In the run's folder: its progress when it ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the run is after a whole number of steps; saved with every checkpoint.

    Example: Progress(step=50, position=600, tokens=1_834_112, seconds=4000.0, before=Interval(0.48, 0.44, 0.52), after=None)
    """

    step: int = 0
    position: int = 0
    """All positions below have been trained on or replaced; the next step starts here."""
    ahead: tuple[int, ...] = ()
    """Positions above it of which that is true already, in order; none where all steps were synchronous."""
    tokens: int = 0
    """Sampled completion tokens."""
    correct: int = 0
    """Correct completions."""
    seconds: float = 0.0
    """Wall time of all steps, over all attempts."""
    before: Interval | None = None
    """Held-out accuracy of the start model."""
    after: Interval | None = None
    """Held-out accuracy after the last step of the run, or before a limit of `cost` ended it."""
    evaluated: int | None = None
    """The last step whose policy was evaluated."""
    held_out: int = 0
    """Problems that accuracy was measured on."""
    ended: Ended | None = None
    """What ended the run: its steps are done, or a limit of `cost` was reached; None while it goes on."""

    @classmethod
    def read(cls, state: dict[str, Any], origin: Path) -> "Progress":
        """From what was written to `origin`. UserError when that is not a run's progress."""
        progress = as_record(cls, state, origin)
        if "step" not in state or progress.step < 0:
            raise damaged(origin, "it has no step")
        return progress

    def used(self, positions: Iterable[int]) -> "Progress":
        """With these positions trained on or replaced, too."""
        position, ahead = self.position, {*self.ahead, *positions}
        while position in ahead:
            ahead.remove(position)
            position += 1
        return replace(self, position=position, ahead=tuple(sorted(ahead)))


def read_result(run_folder: Path) -> Progress | None:
    """Progress of a run when it ended; None while it goes on. UserError when the file is damaged."""
    content = read_json(run_folder / RESULT)
    return None if content is None else Progress.read(content, run_folder / RESULT)
