"""Changes that a run makes by itself after a step: its stage, the weight of the entropy in the loss, the reference."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from openrs_ray.config.schema import RunConfig
from openrs_ray.run.decisions import Decision, note_decision
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import Changes, StepSettings
from openrs_ray.steering.entropy_floor import EntropyFloor
from openrs_ray.steering.stage_end import StageEnd, stage_end
from openrs_ray.steering.stalled import stalled


@dataclass
class Steering:
    """Steers one attempt. Its decisions follow from the figures of finished steps alone, so that a resume takes them again."""

    config: RunConfig
    attempt: int
    say: Callable[[str], None] = lambda sentence: None
    """Told of every decision."""
    _shares: list[float] = field(default_factory=list)
    """Shares of cut completions, by the finished steps of the present stage."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        attempt: int,
        changes: Changes,
        lines: Sequence[Mapping[str, Any]] = (),
        say: Callable[[str], None] = lambda sentence: None,
    ) -> "Steering":
        """`lines`: of `metrics.jsonl`, for the steps that the attempt goes on from."""
        now, shares = StepSettings.of(config, changes).of_stage, list[float]()
        for line in lines:
            if StepSettings.recorded(line, config).of_stage != now:  # also where a resume has changed the stage itself
                shares.clear()
            else:
                shares.append(_number(line.get("truncated_share")))
        return cls(config, attempt, say, shares)

    def after_step(self, step: int, changes: Changes, figures: Mapping[str, float]) -> Changes:
        """Changes from the next step on; `figures`: of `step`, with `truncated_share`. Decisions are on the disk before."""
        self._shares.append(figures["truncated_share"])
        settings = StepSettings.of(self.config, changes)
        end = stage_end(self.config.rollout.each_stage[settings.stage].until, step, self._of_this_stage(settings.stage))
        if end is not None:
            changes = self._next_stage(step, changes, end)
        if figures.get("completion_tokens") == 0:
            return changes  # the entropy of a step that trained on no token is given as 0
        return self._to_entropy_floor(changes, figures.get("entropy", math.nan))

    def _to_entropy_floor(self, changes: Changes, entropy: float) -> Changes:
        """The weight is in each step's line of `metrics.jsonl`; no decision is written for it."""
        loss = self.config.loss
        if not loss.entropy_floor:
            return changes
        floor = EntropyFloor(loss.entropy_floor, loss.entropy_weight_step, loss.max_entropy_weight)
        before = loss.entropy_weight if changes.entropy_coefficient is None else changes.entropy_coefficient
        coefficient = floor.coefficient(before, entropy)
        return replace(changes, entropy_coefficient=coefficient, entropy_weight=floor.weight(coefficient, entropy))

    def after_evaluation(self, progress: Progress) -> Changes:
        """Changes after an evaluation, which `metrics.jsonl` has; where its step becomes the reference, keep that policy."""
        step, changes, after = progress.step, progress.changes, self.config.loss.reference_reset_after
        if not after or progress.evaluated != step or changes.reference_step == step or step == self.config.run.steps:
            return changes
        lines = read_metrics(self.config.run.path, "evaluation")
        known = {line["step"]: line["accuracy"] for line in lines if line.get("accuracy") is not None}
        accuracies = {at: value for at, value in known.items() if at <= step}
        if step not in accuracies or not stalled(accuracies, changes.reference_step, after):
            return changes
        sentence = (
            f"the policy of step {step} becomes the reference of the KL penalty, and the optimizer begins anew, since the last "
            f"{after} evaluations did not raise the held-out accuracy"
        )
        self._decide(
            Decision(
                step,
                self.attempt,
                "reference",
                "reference reset",
                {"reference_step": (changes.reference_step, step)},
                {"accuracies": accuracies},
                sentence,
            )
        )
        return replace(changes, reference_step=step)

    def _decide(self, decision: Decision) -> None:
        note_decision(self.config.run.path, decision)
        self.say(f"{decision.by.capitalize()}: {decision.sentence}")

    def _of_this_stage(self, stage: int) -> Sequence[float]:
        """Without the first steps of a later stage, which may have trained on completions of the stage before."""
        return self._shares[self.config.rollout.staleness if stage else 0 :]

    def _next_stage(self, step: int, changes: Changes, end: StageEnd) -> Changes:
        was = StepSettings.of(self.config, changes)
        changed = replace(changes, stage=was.stage + 1)
        now = StepSettings.of(self.config, changed)
        stages = len(self.config.rollout.stages)
        sentence = (
            f"stage {now.stage + 1} of {stages} begins with step {step + 1}: "
            f"{self.config.rollout.stage(now.stage).as_text}, since {end.sentence}"
        )
        before, after = was.of_stage, now.of_stage
        differ = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        self._decide(Decision(step, self.attempt, "stage", "next stage", differ, asdict(end), sentence))
        self._shares.clear()
        return changed


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
