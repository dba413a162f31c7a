"""The witnesses beside the record: they know how many steps a run has done, and the figures of each.

The record cannot prove that nothing is missing from its end. `metrics.jsonl`, `result.json` and the manifest of the checkpoints
are written apart from it, each after the rows of its step.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import read_result


@dataclass(frozen=True, slots=True)
class Witness:
    due: int
    """Steps that are done by any of the three."""
    figures: dict[int, dict[str, Any]]
    """The line of each step in `metrics.jsonl`."""

    @classmethod
    def of(cls, run_folder: Path) -> "Witness":
        """UserError when one of the files is damaged."""
        figures = {line["step"]: line for line in read_metrics(run_folder)}
        result = read_result(run_folder)
        saved = [checkpoint.step for checkpoint in CheckpointStore(run_folder / "checkpoints").checkpoints()]
        return cls(max([0, *figures, *saved, *([result.step] if result else [])]), figures)

    def missing(self, steps: int) -> list[int]:
        """Steps without figures, of so many in the record; a kill may come between the rows of the last and its figures."""
        return [
            step for step in range(1, max(steps, self.due) + 1) if step not in self.figures and step != self.due + 1
        ]
