"""Everything that the page shows of a run, but for its completions, as JSON-ready values.

Reading again is cheap: only what the files have gained is read, and tests are computed once for each evaluation.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import ValidationError

from openrs_ray.common.files import read_json
from openrs_ray.common.foreign import parse_json
from openrs_ray.config.names import CONFIG
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation import report
from openrs_ray.evaluation.run_reports import reports_in
from openrs_ray.report import timing
from openrs_ray.report.curves import MOST_POINTS, curves, tail
from openrs_ray.report.decided import decided
from openrs_ray.report.events import EventLog
from openrs_ray.report.following import Following
from openrs_ray.report.headline import headline, last_gain
from openrs_ray.report.settings import expected_bands, settings
from openrs_ray.run import account, attempts, metrics
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import current_files
from openrs_ray.run.ledger import FILE as LEDGER
from openrs_ray.run.ledger import read_head
from openrs_ray.run.progress import RESULT

T = TypeVar("T")
_SILENT_S = 60.0
"""A living driver counts its cost every 5 seconds."""


def summary(run: Path) -> dict[str, Any]:
    """The page's data of one run. UserError where it is no run's folder."""
    if not run.is_dir():
        raise UserError(f"{run} is no folder of a run")
    return RunSummary(run).read()


@dataclass
class RunSummary:
    """Follows one run, which may be training."""

    run: Path
    most_points: int = MOST_POINTS
    _figures: "_Figures" = field(init=False)
    _events: EventLog = field(init=False)
    _kept: dict[str, tuple[Any, Any, list[str]]] = field(default_factory=dict)
    _faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._figures = _Figures(self.run)
        self._events = EventLog(self.run)

    def read(self, have: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All of it, or of the curves only what a page lacks that has `have["points"]` points of `have["token"]`."""
        self._faults = []
        config = self._part("config.json", self._config)
        shown = self._once("settings", _stamp(self.run / CONFIG), lambda: settings(self.run)) or {}
        self._part("metrics.jsonl", self._figures.update)
        self._part("log.txt", self._events.update)
        train, evaluations = self._figures.train, self._figures.evaluations
        step = int(train[-1]["step"]) if train else 0
        steps = config.run.steps if config else None
        now = self._part("result.json", lambda: state(self.run, step, steps)) or "stopped"
        if now != "training":
            self._once("record", (now, step), lambda: self._check_whole(step))
        evaluated = tuple((line["step"], line["attempt"]) for line in evaluations)
        gained = self._once("gain", evaluated, lambda: last_gain(self.run, config, evaluations))
        head = self._part("cost.json", lambda: headline(self.run, config, train, evaluations))
        return {
            "name": self.run.name,
            "folder": str(self.run),
            "recipe": shown.get("recipe"),
            "state": now,
            "why": self._part("result.json", lambda: why(self.run)) if now == "ended" else None,
            "step": step,
            "steps": steps,
            "tasks": [task.name for task in config.tasks if task.name] if config else [],
            "attempts": len(self._figures.attempts),
            "headline": head and head | {"difference": gained},
            "curves": self._curves(have or {}),
            "held_out": curves(evaluations),
            "limits": _limits(config),
            "bands": expected_bands(shown.get("recipe")),
            "checkpoints": self._part("manifest.json", lambda: _checkpoints(self.run, evaluations)) or [],
            "evaluations": self._once("evaluations", self._reports(), self._evaluations) or [],
            "events": self._events.as_json(),
            "decisions": self._part("decisions.jsonl", lambda: decided(self.run)) or [],
            "stages": timing.stages(train),
            **self._trace(f"{len(self._figures.attempts)}.{step}.{now}", have or {}),
            "settings": shown,
            "ledger": self._once("ledger", _stamp(self.run / LEDGER), lambda: as_head(self.run)),
            "faults": self._faults,
        }

    def _curves(self, have: Mapping[str, Any]) -> dict[str, Any]:
        whole = curves(self._figures.train, self.most_points)
        token = f"{len(self._figures.attempts)}.{whole['bucket']}.{','.join(whole['columns'])}"
        points = have.get("points") if have.get("token") == token else 0
        known = points if isinstance(points, int) and 0 <= points <= len(whole["step"]) else 0
        return tail(whole, known) | {"token": token}

    def _trace(self, stamp: str, have: Mapping[str, Any]) -> dict[str, Any]:
        """Read anew after each step; "same" for a page that has it."""
        trace = self._once("trace", stamp, lambda: timing.traced(self.run))
        return {"trace_stamp": stamp, "trace": "same" if have.get("trace") == stamp else trace}

    def _part(self, name: str, read: Callable[[], T]) -> T | None:
        """None, and a sentence among the faults, where a file cannot be read: the rest is shown all the same."""
        try:
            return read()
        except (UserError, RunError, OSError) as error:
            self._faults.append(f"{name}: {error}")
            return None

    def _once(self, name: str, stamp: Any, read: Callable[[], T]) -> T | None:
        """The value of an earlier reading, and its faults, while the stamp stays the same."""
        known = self._kept.get(name)
        if known is not None and known[0] == stamp:
            self._faults += known[2]
        else:
            before = len(self._faults)
            value = self._part(name, read)
            known = self._kept[name] = (stamp, value, self._faults[before:])
        kept: T | None = known[1]
        return kept

    def _check_whole(self, step: int) -> None:
        """RunError where the figures end before the record of completions, by more than the step that a kill leaves."""
        recorded = max((file.step for file in current_files(self.run, "train")), default=0)
        if recorded > step + 1:
            raise RunError(
                f"{metrics.FILE} ends with step {step} and the completions with step {recorded}: figures are missing"
            )

    def _config(self) -> RunConfig | None:
        content = read_json(self.run / CONFIG)
        try:
            return None if content is None else RunConfig.model_validate(content)
        except ValidationError as error:
            raise UserError(f"it has settings that this version does not know ({error.error_count()})") from error

    def _reports(self) -> tuple[Any, ...]:
        """Stamps of the reports, and of the checkpoints, which say whether a report's policy is still there."""
        reports = tuple((report, _stamp(report.path)) for report in reports_in(self.run))
        return _stamp(self.run / "checkpoints" / "manifest.json"), reports

    def _evaluations(self) -> list[dict[str, Any]]:
        found = []
        for one in reports_in(self.run):
            try:
                tables = report.shown(one.content)
                outdated = [note for note in [one.outdated()] if note]
                place = str(one.path.parent.relative_to(self.run))
                found.append({"place": place, **tables, "notes": [*outdated, *tables["notes"]]})
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._faults.append(f"{one.path}: a report of another version ({type(error).__name__})")
        return found


@dataclass
class _Figures:
    """The lines of `metrics.jsonl` that count, as it grows."""

    run: Path
    attempts: dict[int, int] = field(default_factory=dict)
    train: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _file: Following | None = None

    def update(self) -> None:
        self._file = self._file or Following(self.run / metrics.FILE)
        found, replaced = self._file.new_lines()
        self._lines = [*([] if replaced else self._lines), *filter(None, map(_figures_of, found))]
        self.attempts = attempts.read_attempts(self.run)
        self.train, self.evaluations = self._current("train"), self._current("evaluation")

    def _current(self, phase: str) -> list[dict[str, Any]]:
        current = {
            line["step"]: line
            for line in self._lines
            if line.get("phase") == phase and not attempts.superseded(self.attempts, line["attempt"], line["step"])
        }
        return [current[step] for step in sorted(current)]


def _figures_of(line: bytes) -> dict[str, Any] | None:
    """None for a line torn by a kill."""
    try:
        figures = parse_json(line)
    except ValueError:
        return None
    if not (
        isinstance(figures, dict) and isinstance(figures.get("step"), int) and isinstance(figures.get("attempt"), int)
    ):
        return None
    tokens, seconds = figures.get("sampled_tokens"), figures.get("step_s")
    return figures | ({"tokens_per_s": tokens / seconds} if tokens and seconds else {})


def as_head(run: Path) -> dict[str, Any] | None:
    """Head of the run's chain of digests."""
    head = read_head(run)
    return None if head is None else asdict(head)


def state(run: Path, step: int, steps: int | None) -> str:
    """training, finished, ended (by a limit of cost), stopped, or empty."""
    result = read_json(run / RESULT)
    if driven(run):
        return "training"
    if result is not None and steps is not None and step >= steps:
        return "finished"
    if result is not None and result.get("ended"):
        return "ended"
    return "stopped" if step else "empty"


def why(run: Path) -> str | None:
    """The sentence about the limit that ended a run; None of an older version's."""
    return (read_json(run / RESULT) or {}).get("why") or None


def driven(run: Path) -> bool:
    """True while the process that `driver.lock` names lives on this machine, or goes on counting the cost on another one.

    The lock itself is left alone: to try it could keep a driver from starting.
    """
    lock = run / "driver.lock"
    try:
        match = re.fullmatch(r"process (\d+) on (\S+)\s*", lock.read_text(encoding="utf-8"))
        if match is None:
            return False
        if match[2] != os.uname().nodename:
            # A time to come, but for clocks that differ, is nobody's.
            return abs(time.time() - (run / account.FILE).stat().st_mtime) < _SILENT_S
        # A process that began after the lock was written is another one with the same number.
        return bool(psutil.Process(int(match[1])).create_time() <= lock.stat().st_mtime + 1.0)
    except (OSError, psutil.Error):
        return False


def _limits(config: RunConfig | None) -> dict[str, float]:
    """Bounds that the curves are drawn with."""
    if config is None:
        return {}
    return {
        "mean_length": config.rollout.max_completion_tokens,
        "mismatch_kl": config.push.max_mismatch_kl,
        "age_max": config.rollout.staleness,
    }


def _checkpoints(run: Path, evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    accuracy = {line["step"]: line for line in evaluations}
    return [
        {
            "step": checkpoint.step,
            "kind": checkpoint.kind,
            "complete": checkpoint.complete,
            "bytes": checkpoint.size,
            **{name: accuracy.get(checkpoint.step, {}).get(name) for name in ("accuracy", "low", "high")},
        }
        for checkpoint in CheckpointStore(run / "checkpoints").checkpoints()
    ]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
