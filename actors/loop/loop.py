"""The loop of a run. One step, and what it waits for:

    take        admits positions into the free slots, which   rollout workers and reward pool (rollout.deadline_s)
                are sampled beside the loop; then takes
                the oldest groups, sampled and judged
    train       one optimizer step on all ranks               learner ranks (learner.deadline_s)
    push        the new weights, proven, as version = step    learner and every engine (push.deadline_s)
    write       Parquet rows and metrics, which reach the     the disk, before the next step trains
                disk while the next step samples; display
    guard       ends the attempt, or the run, when it must    the disk
    steer       the stage of the next step
    save        a checkpoint, when one is due                 learner ranks (checkpoint.deadline_s)
    evaluate    the held-out problems, when that is due;      as `take`
                then the reference may be reset

With `rollout.staleness` k there are slots for k + 1 steps: with 0, engines and learner take turns; otherwise engines sample
while the learner works. Completions in flight pause during a push, then go on with the new weights.

State on disk is consistent at the end of a step only, when it is written: a stop waits for that point, except while `take` or an
evaluation waits, which changes nothing. Checkpoints, evaluations and the next step's training wait for what is being written.
"""

import time
from dataclasses import asdict, dataclass, replace

from actors.learner.group import LearnerGroup
from actors.loop.batch import check_batch
from actors.loop.evaluation import Evaluation
from actors.loop.guard import RunGuard
from actors.loop.limits import Limits, Stopped
from actors.loop.lookahead import Lookahead
from actors.loop.push import WeightPush
from actors.loop.saving import Saving
from actors.loop.writer import RunWriter
from openrs_ray.algorithm.step_metrics import check_mismatch, step_times, truncated_share
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Recurring
from openrs_ray.evaluation.slope import recorded_slope, too_flat
from openrs_ray.run.budget import ENDING, Budget, LimitReached, Work
from openrs_ray.run.decisions import Decision, note_decision
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import span
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.steering.steering import Steering

AFTER_TAKE: tuple[Work, ...] = ("learn", "resume", *ENDING)
"""Work that must still be paid for while `take` waits."""


@dataclass
class Loop:
    """Steps of one attempt, with evaluations and checkpoints. `actors.loop.system` builds it."""

    config: RunConfig
    progress: Progress
    """As of the last finished step."""
    sampling: Lookahead
    learner: LearnerGroup
    push: WeightPush
    writer: RunWriter
    saving: Saving
    evaluation: Evaluation
    limits: Limits
    budget: Budget
    display: RunDisplay
    steering: Steering
    guard: RunGuard | None = None
    """None where guard.action is off."""

    async def step(self) -> None:
        step, began = self.progress.step + 1, time.monotonic()
        settings = StepSettings.of(self.config, self.progress.changes)
        with span("take", step=step) as seen:
            batch = await self.limits.interruptible(self.sampling.take(step, settings), *AFTER_TAKE)
            seen["positions"] = [group.position for group in batch.drawn]
        await self.writer.written()  # the previous step's record
        check_batch(batch, step, self.config)
        taken = time.monotonic()
        with self.budget.timing("learn"):
            async with self.learner.weights_lock:
                update = await self.learner.train(batch.groups, step, settings)
                trained = time.monotonic()
                limit, quantization = self.config.push.max_mismatch_kl, self.config.rollout.quantization
                mismatch = update.metrics.get("first_mismatch_kl", update.metrics["mismatch_kl"])
                check_mismatch(mismatch, step, limit, quantization)
                report = await self.push.push(step)
                seconds = taken - began, trained - taken, report.seconds, time.monotonic() - began
                times = step_times(*seconds, self.sampling.idle_seconds())
                progress = self.writer.write(self.progress, batch, update, report, times, settings)
                figures = {"truncated_share": truncated_share(batch.drawn), **update.metrics}
                self.progress = replace(progress, changes=self.steering.after_step(step, progress.changes, figures))

    async def run(self) -> Progress:
        """Train to the last step, or as far as the budget and the hours go.

        Raises:
            Stopped, Recurring (nothing is learned): the run was saved first. RunError: the last checkpoint stands.
            RolledBack, Recurring: the guard's, which saves nothing.
        """
        try:
            limit = await self._train()
            await self.saving.save("kept", self.progress)
            if limit:
                self.progress = await self.evaluation.after_limit(self.progress)
        except Stopped:
            await self._save_to_stop()
            raise
        await self.writer.written()
        self.progress = replace(self.progress, ended=limit.ended if limit else "steps", why=str(limit or ""))
        self.writer.end(self.progress)
        return self.progress

    async def _train(self) -> LimitReached | None:
        """The limit that was reached before the last step."""
        try:
            self.budget.reached(self.progress.step)
            await self._evaluate()  # of the start model, or repeated after a kill, with what follows from it
            while self.progress.step < self.config.run.steps:
                self._check_worth()
                self.budget.check("step", "resume", *ENDING)
                with self.budget.timing("step"), span("step", step=self.progress.step + 1):
                    await self.step()
                if learns_nothing := self.writer.watch.stop:
                    await self._keep_what_was_learned()
                    raise Recurring(learns_nothing)
                await self._guard()
                await self.saving.if_due(self.progress)
                await self._evaluate()
            return None
        except LimitReached as limit:
            why = (
                str(limit)
                if limit.ended == "flat"
                else f"what is left of the {limit.ended} is for saving and evaluating"
            )
            self.display.status(f"ending after step {self.progress.step}: {why}")
            await self.sampling.close()
            return limit

    def _check_worth(self) -> None:
        """LimitReached where held-out accuracy gains too little for its dollars."""
        if not (found := recorded_slope(self.config, self.progress)):
            return
        self.display.note(f"held-out accuracy gained {found}")
        if sentence := too_flat(self.config, found):
            step, attempt = self.progress.step, self.writer.attempt
            decision = Decision(step, attempt, "stop", "end the run", {}, asdict(found), sentence)
            note_decision(self.config.run.path, decision)
            raise LimitReached(sentence, "flat")

    async def _guard(self) -> None:
        if self.guard is not None:
            await self.guard.act(self.progress)

    async def _evaluate(self) -> None:
        """An evaluation where one is due, and what follows from it; the policy that becomes the reference is kept."""
        self.progress = await self.evaluation.if_due(self.progress)
        await self._guard()
        changes = self.steering.after_evaluation(self.progress)
        if changes != self.progress.changes:
            self.progress = replace(self.progress, changes=changes)
            await self.saving.save("kept", self.progress, anew=True)

    async def _keep_what_was_learned(self) -> None:
        self.display.status("nothing is learned any more: saving and evaluating")
        await self.sampling.close()
        await self.saving.save("kept", self.progress)
        if self.progress.step > 1:  # the run may have learned all there was
            self.progress = await self.evaluation.after_limit(self.progress)

    async def _save_to_stop(self) -> None:
        self.display.status("stopping: saving a checkpoint")
        await self.sampling.close()
        await self.saving.save("resume", self.progress)
        # Said before the engines are ended, for which `ray job stop` may not leave the time.
        name, path = self.config.run.name, self.config.run.path
        self.display.note(
            f"run {name} stopped after step {self.progress.step} and is saved in {path}: --resume continues it"
        )
