"""Writes a run's record, metrics, progress and console lines.

A step's record and metrics are written in a thread while the loop samples the next step. Nothing may depend on the step before
`written` has returned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from actors.learner.group import Update
from actors.loop.batch import Batch
from actors.loop.beside import Beside
from actors.loop.push import PushReport
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.algorithm.step_metrics import correctness, first_detail, rest_metrics, step_metrics, task_metrics
from openrs_ray.algorithm.unusable import unusable_warning
from openrs_ray.common.files import write_json
from openrs_ray.common.foreign import why
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Decoder
from openrs_ray.data.rests import Rests, nothing_left
from openrs_ray.evaluation.benchmarks import is_benchmark
from openrs_ray.evaluation.held_out import HeldOutScores
from openrs_ray.records import Group, Scored, Status, age_metrics
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoint_files import ADAPTER, POLICY, TRAINER, Checkpoint
from openrs_ray.run.completion_files import Phase
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.display import RunDisplay, StepFigures
from openrs_ray.run.ledger import Ledger
from openrs_ray.run.log import attempt_folder
from openrs_ray.run.metrics import Line, MetricsLog
from openrs_ray.run.progress import RESULT, Progress
from openrs_ray.run.samples import sample_lines
from openrs_ray.run.spans import span, traced
from openrs_ray.run.state import CONFIG
from openrs_ray.run.step_settings import StepSettings


@dataclass(frozen=True)
class RunWriter:
    """Writes one attempt, which must have its line in `attempts.jsonl`."""

    config: RunConfig
    attempt: int
    watch: LearningWatch
    metrics: MetricsLog
    budget: Budget
    display: RunDisplay
    rests: Rests = field(default_factory=Rests)
    beside: Beside = field(default_factory=Beside)
    decoder: Decoder | None = None
    """Makes the prompts' text for the record."""
    seen: Callable[[int, Line, str], None] = lambda step, line, phase: None
    """Told of the figures of every step and evaluation, with its phase."""

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.config.run.path)

    @traced("write")
    def write(
        self,
        progress: Progress,
        batch: Batch,
        update: Update,
        report: PushReport,
        times: Mapping[str, float],
        settings: StepSettings,
    ) -> Progress:
        """Begin to write the step after `progress`; `written` waits for the end. The previous step must have been written."""
        step = progress.step + 1
        figures = step_metrics(batch.drawn) | batch.metrics() | age_metrics(batch.groups, step - 1)
        figures |= task_metrics(batch.drawn)
        if self.rests.active:
            figures |= rest_metrics(batch.rested)
        if self.config.rollout.by_prompt_length:
            figures["unfit_prompts"] = float(len(batch.unfit))
        verdicts = [verdict for group in batch.drawn for verdict in group.verdicts]
        progress = replace(
            progress.used(batch.positions),
            step=step,
            tokens=progress.tokens + int(figures["sampled_tokens"]),
            correct=progress.correct + sum(verdict.status is Status.CORRECT for verdict in verdicts),
            seconds=progress.seconds + times["step_s"],
            after=None,  # what is known is of an earlier policy
            tasks_after={},
            streaks=self.rests.after(progress.streaks, batch.drawn),
        )
        push = {"push_bytes": report.nbytes, "probe_difference": report.probe_difference}
        cost = self.budget.metrics(times["step_s"], progress.correct)
        line = {**figures, **update.metrics, **times, **push, **cost, **settings.metrics()}
        self.beside.start(partial(self._write_step, step, batch, update.advantages, line), after=update.scored)
        self.seen(step, line, "train")
        self.budget.reached(step)
        self._show(step, batch, {**figures, **update.metrics, **times, **settings.metrics()})
        self.rests.settle(progress.streaks, step)
        for task in self.rests.all_at_rest() if batch.rested else ():
            self.display.warn(nothing_left(task, step))
        return progress

    def _write_step(
        self,
        step: int,
        batch: Batch,
        advantages: np.ndarray,
        line: Mapping[str, float | int | None],
        scored: Scored | None = None,
    ) -> None:
        with span("record", step=step):
            if batch.rested or batch.unfit:
                record = CompletionRecord(self.config.run.path)
                record.write_passed(step, self.attempt, batch.rested, batch.unfit)
            if batch.replaced:  # before the step's own rows, which do not count without these
                self._write_rows(step, batch.replaced, None, "replaced")
            self._write_rows(step, batch.groups, advantages, "train", scored)
            self.metrics.write(step, line)
            self.ledger.note("step", step=step, attempt=self.attempt)
            self.metrics.sinks.samples(step, "train", batch.groups)

    def _write_rows(
        self,
        step: int,
        groups: Sequence[Group],
        advantages: np.ndarray | None,
        phase: Phase,
        scored: Scored | None = None,
    ) -> None:
        texts = [group.texts for group in groups]
        record = CompletionRecord(self.config.run.path, self.decoder)
        record.write(step, self.attempt, groups, texts, advantages, phase, scored)

    async def written(self) -> None:
        """Wait until everything is on the disk. OSError when it could not be written."""
        await self.beside.done()

    async def close(self) -> None:
        """Finish writing what has begun, also after a failure elsewhere."""
        try:
            await self.beside.close()
            self.ledger.note("stop", only_news=True, attempt=self.attempt)  # such as a last decision
        except OSError as error:
            self.display.warn(f"the record of the last step could not be written: {why(error)}")

    def _show(self, step: int, batch: Batch, figures: Mapping[str, float]) -> None:
        if unjudged := int(figures["timeouts"] + figures["errors"] + figures["not_judged"]):
            why = first_detail(batch.drawn)
            left = (
                "learned from the teacher alone" if self.config.loss.kind == "distill" else "were left out of the loss"
            )
            self.display.warn(f"step {step}: {unjudged} completions could not be judged and {left}{why}")
        if warning := unusable_warning(batch.drawn, step):
            self.display.warn(warning)
        self.display.step(
            StepFigures(
                step=step,
                reward=figures["reward"],
                accuracy=figures["accuracy"],
                truncated_share=figures["truncated_share"],
                mean_length=figures["mean_length"],
                groups_with_spread=int(figures["groups_with_spread"]),
                groups=len(batch.drawn),
                clipped_share=figures["clipped_share"],
                kl=figures["kl"] if figures["setting/kl_beta"] > 0 else None,
                tokens=int(figures["sampled_tokens"]),
                seconds=figures["step_s"],
                mismatch=figures["mismatch_kl"] if self.config.rollout.quantization != "none" else None,
                teacher=figures.get("teacher_kl"),
            )
        )
        if warning := self.watch.step(step, figures, batch.drawn):
            self.display.warn(warning)

    async def evaluation(self, step: int, groups: Sequence[Group], scores: HeldOutScores) -> None:
        correct = correctness(groups)
        unjudged = int(np.isnan(correct).sum())
        await self.written()
        line = scores.metrics() | self._doubt_and_cost(unjudged)
        self.beside.start(partial(self._write_evaluation, step, groups, line))
        await self.written()
        self.seen(step, line, "evaluation")
        doubt = f"; {unjudged} of {correct.size} not judged, the interval holds either way" if unjudged else ""
        eight = self.config.rollout.quantization
        doubt += f"; sampled by engines in {eight}" if eight != "none" else ""
        after = f"after {step} steps: {scores.accuracy}" if scores.accuracy and not scores.tasks else ""
        self.display.note(
            f"held-out accuracy {after}{doubt}" if after else f"held out, after {step} steps: {scores}{doubt}"
        )
        benchmarks = {task.name for task in self.config.tasks if is_benchmark(task.held_out.path)}
        self.display.samples(sample_lines([group for group in groups if group.problem.task not in benchmarks]))

    def _doubt_and_cost(self, unjudged: int) -> dict[str, float]:
        cost = {"cost_usd": self.budget.spent().dollars} if self.budget.priced else {}
        return {"unjudged": float(unjudged), **cost}

    def _write_evaluation(self, step: int, groups: Sequence[Group], line: Mapping[str, float]) -> None:
        self._write_rows(step, groups, None, "evaluation")
        self.metrics.write(step, line, "evaluation")
        self.ledger.note("evaluation", step=step, attempt=self.attempt)
        self.metrics.sinks.samples(step, "evaluation", groups)

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Begin to note the attempt's start in the ledger, its settings, and what a killed attempt has left without an entry."""
        folder = attempt_folder(self.config.run.path, self.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, self.config.model_dump(mode="json"))
        # The checkpoint again: a kill may have come between it and its entry.
        parts = _noted_parts(checkpoint.folder.name) if checkpoint else []
        from_step = checkpoint.step if checkpoint else 0
        self.beside.start(lambda: self._note_attempt(from_step, parts))

    @traced("ledger")
    def _note_attempt(self, from_step: int, parts: Sequence[str]) -> None:
        self.ledger.note("attempt", folders=parts, attempt=self.attempt, from_step=from_step)

    def committed(self, step: int, folder: str) -> None:
        """Begin to note the checkpoint in a folder of `checkpoints/`. What was begun before must have been written."""
        self.beside.start(partial(self._note_checkpoint, step, folder))

    @traced("ledger", "step")
    def _note_checkpoint(self, step: int, folder: str) -> None:
        self.ledger.note("checkpoint", folders=_noted_parts(folder), step=step, attempt=self.attempt)

    def end(self, progress: Progress) -> None:
        write_json(self.config.run.path / RESULT, asdict(progress))
        self.ledger.note("end", step=progress.step, attempt=self.attempt)


def _noted_parts(folder: str) -> list[str]:
    """Parts of a checkpoint that the ledger notes: all but the learner's state."""
    return [f"checkpoints/{folder}/{part}" for part in (POLICY, ADAPTER, TRAINER)]
