"""The guard at work: asks `openrs_ray.guard` about each step, writes its decisions down, and ends the attempt for a rollback."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Recurring, UserError
from openrs_ray.export.choice import chosen, kept_policies
from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.knobs import ROLL_BACK
from openrs_ray.guard.ladder import STOP, Situation, decisions
from openrs_ray.guard.watch import Watch
from openrs_ray.run.budget import ENDING, Budget, LimitReached
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.decisions import Decision, note_decision, read_decisions
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress

_PHASES = ("train", "evaluation")
"""Of one step in this order."""


class RolledBack(Exception):
    """The attempt ends; the next one goes on from an earlier checkpoint."""


@dataclass
class RunGuard:
    """The guard of one attempt. `seen` is told of every line of the metrics, `act` comes after each step and evaluation."""

    config: RunConfig
    attempt: int
    store: CheckpointStore
    display: RunDisplay
    written: Callable[[], Awaitable[None]]
    """Waits until the record has all steps so far: it is the evidence."""
    budget: Budget
    _watch: Watch = field(init=False)
    _alarms: list[Alarm] = field(default_factory=list)
    """Not acted upon yet."""
    _step: int = 0

    def __post_init__(self) -> None:
        self._watch = Watch(self.config)
        if self.config.guard.action == "roll_back":
            self.store.needed = lambda steps: self._watch.needed(steps, self._step)
        lines = [(line["step"], phase, line) for phase in _PHASES for line in read_metrics(self._run, phase)]
        for step, phase, line in sorted(lines, key=lambda each: (each[0], _PHASES.index(each[1]))):
            self.seen(step, line, phase)
        # Earlier alarms were acted upon at their time; a rollback for the newest step may have been too expensive.
        self._alarms = [alarm for alarm in self._alarms if alarm.step == self._step]

    @property
    def _run(self) -> Path:
        return self.config.run.path

    def seen(self, step: int, figures: Mapping[str, Any], phase: str = "train") -> None:
        """Note the figures of a step or an evaluation."""
        line = {**figures, "step": step}
        self._alarms += self._watch.step(line) if phase == "train" else self._watch.evaluation(line)
        self._step = step

    async def act(self, progress: Progress) -> None:
        """Take the decisions that are due.

        Raises:
            RolledBack: the next attempt goes back. Recurring: the run stops. LimitReached: going back would cost too much.
        """
        if not self._alarms:
            return
        alarms, self._alarms = self._alarms, []
        await self.written()
        for decision in await asyncio.to_thread(self._decide, alarms, progress):
            if decision.action == ROLL_BACK:
                self._check_pays(decision)
            note_decision(self._run, decision)
            self.display.warn(f"guard: {decision.sentence}")
            if decision.action == ROLL_BACK:
                raise RolledBack(decision.sentence)
            if decision.action == STOP:
                raise Recurring(
                    f"the guard stops run {self.config.run.name} after step {progress.step}: {decision.sentence}"
                )

    def _check_pays(self, decision: Decision) -> None:
        """LimitReached where too little is left for another attempt; the decision is then due again after a resume with more."""
        try:
            self.budget.check("start", "resume", "step", *ENDING)
        except LimitReached:
            self.display.warn(
                f"guard: {decision.sentence}; but that would cost more than is left, and the run ends here"
            )
            raise

    def _decide(self, alarms: list[Alarm], progress: Progress) -> list[Decision]:
        known = self.store.checkpoints()
        now = Situation(
            step=progress.step,
            attempt=self.attempt,
            changes=progress.changes,
            decided=read_decisions(self._run),
            checkpoints=[one.step for one in known if one.complete],
            policies=[one.step for one in known if not one.complete],
            doubtful=self._watch.doubtful,
            best=_best(self._run),
        )
        return list(decisions(alarms, self.config, now))


def _best(run: Path) -> int | None:
    """Step of the best kept policy, by the rules of `launch.export --step best`."""
    try:
        return chosen(run, kept_policies(run), "best").step
    except UserError:
        return None
