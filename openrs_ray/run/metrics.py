"""The figures of a run: `metrics.jsonl`, one line per step, and the same as TensorBoard curves and in the sinks (`run.sinks`).

A line is synced before the next checkpoint begins: a kill loses at most the last, of a step that no checkpoint covers.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrs_ray.common.files import append_line, damaged, read_lines
from openrs_ray.run.attempts import read_attempts, superseded
from openrs_ray.sinks.sinks import Sinks

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE = "metrics.jsonl"
Line = Mapping[str, float | int | None]
"""Figures by name."""


class MetricsLog:
    """Writes the metrics of one attempt, which has its line in `attempts.jsonl`."""

    def __init__(
        self,
        run_folder: Path,
        attempt: int,
        sinks: Sinks | None = None,
        also: Callable[[int, Line, str], None] | None = None,
    ) -> None:
        """`also`: told of every line, with its step and phase."""
        self.sinks = sinks or Sinks()
        if self.sinks:
            self._catch_up(run_folder)
        self._also = also
        self._run_folder = run_folder
        self._attempt = attempt
        self._curves: SummaryWriter | None = None

    def write(self, step: int, metrics: Line, phase: str = "train") -> None:
        """NaN and infinity become null. Phase: train or evaluation."""
        finite = {name: value if value is None or math.isfinite(value) else None for name, value in metrics.items()}
        line = {"step": step, "attempt": self._attempt, "phase": phase} | finite
        append_line(self._run_folder / FILE, line, synced=True)
        curves = self._open_curves()
        for name, value in finite.items():
            if value is not None:
                curves.add_scalar(f"{phase}/{name}", value, step)
        curves.flush()
        self.sinks.metrics(step, phase, finite | {"attempt": self._attempt})
        if self._also:
            self._also(step, finite, phase)

    def _catch_up(self, run_folder: Path) -> None:
        """Send the figures that count and that a service lacks since it was away when an earlier attempt ended."""
        for phase in ("train", "evaluation"):
            for line in read_metrics(run_folder, phase):
                figures = {name: value for name, value in line.items() if name not in ("step", "phase")}
                self.sinks.catch_up(line["step"], phase, figures)

    def close(self) -> None:
        if self._curves is not None:
            self._curves.close()

    def _open_curves(self) -> "SummaryWriter":
        if self._curves is None:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import: not for those who only read metrics

            from_step = read_attempts(self._run_folder)[self._attempt]
            # TensorBoard hides earlier points from purge_step on: those that this attempt draws anew.
            self._curves = SummaryWriter(str(self._run_folder / "tensorboard"), purge_step=from_step + 1)
        return self._curves


def read_metrics(run_folder: Path, phase: str = "train") -> list[dict[str, Any]]:
    """The lines that count, one per step."""
    attempts = read_attempts(run_folder)
    current = {
        line["step"]: line  # the last one wins: an evaluation may be repeated where a run went on
        for line in _lines(run_folder)
        if line["phase"] == phase and not superseded(attempts, line["attempt"], line["step"])
    }
    return [current[step] for step in sorted(current)]


def attempts_logged(run_folder: Path) -> set[int]:
    return {line["attempt"] for line in _lines(run_folder)}


def _lines(run_folder: Path) -> list[dict[str, Any]]:
    lines = read_lines(run_folder / FILE)
    if not all(isinstance(line.get("step"), int) and isinstance(line.get("attempt"), int) for line in lines):
        raise damaged(run_folder / FILE, "a line has no step and attempt")
    return [{"phase": None} | line for line in lines]
