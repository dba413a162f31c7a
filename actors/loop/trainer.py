"""The trainer: owns the actors and the loop. Runs in the driver.

One step, and what it waits for:

    draw        problems of the step                          nobody: a pure function of seed and position
    collect     completions and verdicts, overlapping;        rollout workers (rollout.deadline_s), reward pool
                again for groups that are to be replaced
    train       advantages, micro-batches, optimizer step     learner ranks (learner.deadline_s)
    push        the new weights, proven, as version = step    learner rank 0 and every engine (push.deadline_s)
    write       Parquet rows, metrics, display                the disk
    save        a checkpoint, when one is due                 learner ranks (checkpoint.deadline_s)

Before a step, and while it collects, `openrs_ray.run.budget` says whether the budget is enough for the rest and for the end.

The loop is synchronous: every token of step s was sampled by policy version s - 1; `actors.loop.overlap` is asynchronous.
State on disk is consistent at the end of a step only, so a stop waits for that point unless the step is still collecting, which
changes nothing. A lost rollout worker is the supervisor's business (`actors.rollout.supervisor`); a lost learner is rebuilt here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.learner.group import LearnerGroup, LearnerLost, Update
from actors.loop.batch import Batch, Drawn, collect_batch
from actors.loop.collector import Collector
from actors.loop.push import PushReport, WeightPush
from actors.reward import RewardPool
from actors.rollout.pool import RolloutWorkers
from actors.rollout.worker import Request, RolloutWorker
from actors.weights.sender import SendingRank
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.algorithm.step_metrics import check_judged, check_mismatch, correctness, step_metrics, step_times
from openrs_ray.algorithm.unusable import unusable_warning
from openrs_ray.common.files import write_json
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import completion_texts
from openrs_ray.data.order import Order
from openrs_ray.errors import Recurring, RunError, UserError
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Group, Problem, Status, age_metrics
from openrs_ray.run.attempts import Bounds, start_attempt
from openrs_ray.run.budget import ENDING, Budget, Ended, LimitReached, Work
from openrs_ray.run.checkpoints import Checkpoint, CheckpointStore, Kind
from openrs_ray.run.completions import CompletionRecord, read_groups
from openrs_ray.run.display import RunDisplay, StepFigures
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import RESULT, Progress
from openrs_ray.seeds import completion_seed
from openrs_ray.stats import Interval, mean_interval

T = TypeVar("T")

_REBUILDS = 6
"""So often in a row a lost learner is rebuilt for the same piece of work."""
_REBUILD_PAUSE_S = 2.0
"""Before the first of them, doubled before each further one: Ray takes up to a minute to see that a node is gone."""
_LOOK_S = 5.0
"""So often at least what is left of the budget is looked at: engines that come or go change how long it lasts."""

COLLECTED: tuple[Work, ...] = ("learn", "resume", *ENDING)
"""What is to be done yet when a step has its groups: a checkpoint may be due after it, too."""


class Stopped(Exception):
    """Somebody asked the run to stop; what can be resumed has been saved."""


class Trainer:
    """One attempt of a run.

    Life cycle: start(), run(), and close() whatever happened. stop() may be called at any time from the event loop.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        placement: Placement,
        display: RunDisplay,
        budget: Budget,
        worker_class: type[RolloutWorker] = RolloutWorker,
        rank_class: type[SendingRank] = SendingRank,
        reward_class: type[RewardPool] = RewardPool,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._display = display
        self._budget = budget
        self._budget.extra_gpus = lambda: config.rollout.tensor_parallel * placement.extra_engines()
        self._placement = placement
        self._order = Order(config.run.seed, len(prepared.problems), config.data.shuffle)
        self._store = CheckpointStore(
            config.run.path / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_policies
        )
        self._record = CompletionRecord(config.run.path)
        self._stop = asyncio.Event()
        self._learners = LearnerGroup(config, placement, prepared.model_path, rank_class)
        self._workers = RolloutWorkers(
            config, placement, prepared.model_path, prepared.eos_ids, worker_class, display.warn
        )
        self._workers.revive = self._revive
        self._rewards: Any = (
            ray.remote(reward_class).options(**placement.reward_options(), max_restarts=-1).remote(config.rewards)
        )
        deadline_s, weights = config.rollout.deadline_s, config.rewards.weights
        self._collector = Collector(self._workers, self._rewards, self._decode, deadline_s, weights, display.warn)
        self._push = WeightPush(
            self._learners, self._workers, placement.layout.transport, config.push, probe_batch(prepared.problems)
        )
        self._learner_lost = False
        self._weights = asyncio.Lock()
        """Held while the learner's weights are not those of the last finished step."""
        self._learning = LearningWatch(config, prepared.tokenizer.convert_ids_to_tokens(list(prepared.eos_ids)))
        self.progress = Progress(held_out=len(prepared.held_out))
        self._attempt = 0
        self._saved: tuple[int, Kind] | None = None
        self._saved_at = time.monotonic()
        self._metrics: MetricsLog | None = None

    async def start(self) -> None:
        """Start all actors, load the newest good checkpoint if there is one, and prove the first push."""
        self._store.open()
        checkpoint, damages = await asyncio.to_thread(self._store.latest_good)
        for damage in damages:
            self._display.warn(damage)
        if checkpoint is not None:
            self.progress = Progress.read(checkpoint.trainer_state(), checkpoint.folder)
        elif damages:
            raise UserError("no checkpoint of this run is whole: start anew under another run.name")
        self._display.status("starting the learner and the rollout engines")
        await self._interruptible(self._start_actors(checkpoint), "end")
        (self._config.run.path / RESULT).unlink(missing_ok=True)  # of a run that goes on
        self._attempt = start_attempt(self._config.run.path, self.progress.step, Bounds.of(self._config))
        self._metrics = MetricsLog(self._config.run.path, self._attempt)
        self._display.status("pushing the first weights")
        await self._push.connect()
        async with self._weights:
            await self._with_learner(lambda: self._push.push(self.progress.step))
        self._budget.started()

    async def _start_actors(self, checkpoint: Checkpoint | None) -> None:
        if self._config.placement.colocated:
            await self._workers.start()  # alone: vLLM looks at what is free on the GPU while it starts
            async with self._learners_turn():
                await self._start_learners(checkpoint)
        else:
            await asyncio.gather(self._workers.start(), self._start_learners(checkpoint))

    async def _start_learners(self, checkpoint: Checkpoint | None) -> None:
        await self._learners.start()
        await self._learners.check_shared_folder(self._config.run.path)
        if checkpoint is not None:
            await self._resume(checkpoint)

    @asynccontextmanager
    async def _learners_turn(self) -> AsyncIterator[None]:
        """The learner at work; engines that are to give it their memory sleep meanwhile, and need a push afterwards."""
        if not self._config.placement.colocated:
            yield
            return
        sleeps = self._config.rollout.sleep_while_learning
        async with self._workers.crew.starting:  # nor may one start meanwhile, which looks at what is free on the GPU
            if sleeps:
                await self._workers.sleep()
            yield
            if sleeps:
                await self._learners.release_memory()
                await self._workers.wake()

    async def _resume(self, checkpoint: Checkpoint) -> None:
        self._display.status(f"resuming from step {checkpoint.step}")
        await self._learners.load(checkpoint.folder)
        self._store.discard_newer(checkpoint.step)
        self._saved = checkpoint.step, checkpoint.kind

    async def run(self) -> Progress:
        """Train to the last step, or as far as the budget and the hours go.

        Raises:
            Stopped: stop() was called; the run was saved first.
            RunError: something broke; the last checkpoint stands. Recurring: nothing is learned; the run was saved first.
        """
        try:
            ended = await self._train()
            await self._save("kept")
            if ended != "steps":
                await self._evaluate_last()
        except Stopped:
            await self._save_to_stop()
            # Said before the engines are ended, for which `ray job stop` may not leave the time.
            name, path = self._config.run.name, self._config.run.path
            self._display.note(
                f"run {name} stopped after step {self.progress.step} and is saved in {path}: --resume continues it"
            )
            raise
        self.progress = replace(self.progress, ended=ended)
        write_json(self._config.run.path / RESULT, asdict(self.progress))
        return self.progress

    async def _save_to_stop(self) -> None:
        self._display.status("stopping: saving a checkpoint")
        await self._give_up_sampling()
        await self._save("resume")

    async def _keep_what_was_learned(self) -> None:
        """Before a run ends that learns nothing any more: it may have learned all there was."""
        self._display.status("nothing is learned any more: saving and evaluating")
        await self._give_up_sampling()
        await self._save("kept")
        if self.progress.step > 1:
            await self._evaluate_last()

    async def _train(self) -> Ended:
        """All steps with their evaluations and periodic checkpoints, as far as there is money and time. What ended it."""
        try:
            self._budget.ahead = self._works_ahead()
            await self._evaluate_if_due()
            while self.progress.step < self._config.run.steps:
                self._budget.check("step", "resume", *ENDING)
                with self._budget.timing("step"):
                    await self._step()
                if self._learning.stop:
                    await self._keep_what_was_learned()
                    raise Recurring(self._learning.stop)
                await self._save_if_due()
                await self._evaluate_if_due()
            return "steps"
        except LimitReached as limit:
            self._display.status(
                f"ending after step {self.progress.step}: what is left of the {limit.ended} is for saving and evaluating"
            )
            await self._give_up_sampling()
            return limit.ended

    def _works_ahead(self) -> dict[Work, int]:
        """How much of everything the run has before it."""
        left, every = self._config.run.steps - self.progress.step, self._config.evaluation.every_steps
        evaluations = 1 + (left // every if every else 0)
        return {
            "step": left,
            "kept": 1 + left // self._config.checkpoint.every_steps,
            "evaluation": evaluations,
            "end": 1,
        }

    async def _step(self) -> None:
        config, step, started = self._config, self.progress.step + 1, time.monotonic()
        wanted, most = config.rollout.problems_per_step, config.rollout.most_drawn_per_step

        async def sample(drawn: Sequence[Drawn]) -> list[Group]:
            return await self._collector.collect(drawn, self._training_requests(drawn), step - 1)

        candidates = self._draw(self.progress.next_positions(most))
        batch = await self._interruptible(collect_batch(candidates, wanted, sample), *COLLECTED)
        check_judged(batch.drawn, step, config.rewards.max_unjudged_share)
        sampled = time.monotonic()
        with self._budget.timing("learn"):
            async with self._weights:
                update, trained, report = await self._train_and_push(batch.groups, step)
                times = step_times(sampled - started, trained - sampled, report.seconds, time.monotonic() - started)
                await self._write(step, batch, update, report, times)

    async def _train_and_push(self, groups: Sequence[Group], step: int) -> tuple[Update, float, PushReport]:
        """The step's update and push, and the moment between them."""

        async def attempt() -> tuple[Update, float, PushReport]:
            async with self._learners_turn():
                update = await self._learners.train(groups, step)
            check_mismatch(update.metrics["mismatch_kl"], step, self._config.push.max_mismatch_kl)
            return update, time.monotonic(), await self._push.push(step)

        return await self._with_learner(attempt)

    async def _revive(self) -> None:
        """No engine serves any more: bring the weights of the last push to those that have started again."""
        async with self._weights:
            if not self._workers.crew.serving:
                await self._with_learner(lambda: self._push.push(self._push.version))

    async def _with_learner(self, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` gives, `_weights` being held; a lost learner is rebuilt as of the last finished step first."""
        for rebuilds in range(_REBUILDS):
            try:
                if self._learner_lost:
                    await self._rebuild_learner()
                return await act()
            except LearnerLost as error:
                self._learner_lost = True
                self._display.warn(f"the learner is lost and is rebuilt from the last checkpoint: {error}")
                await asyncio.sleep(_REBUILD_PAUSE_S * 2**rebuilds)
        await self._rebuild_learner()
        return await act()

    async def _rebuild_learner(self) -> None:
        """All ranks anew; the steps since the checkpoint are trained again from the record, not sampled or counted again."""
        async with self._learners_turn():
            await self._learners.renew()
            await self._push.disconnect()
            await self._learners.start()
            checkpoint, damages = await asyncio.to_thread(self._store.latest_good)
            for damage in damages:
                self._display.warn(damage)
            if checkpoint is not None:
                await self._learners.load(checkpoint.folder)
            for step in range(checkpoint.step + 1 if checkpoint else 1, self.progress.step + 1):
                await self._learners.train(read_groups(self._config.run.path, step, self._prepared.problems), step)
        await self._push.connect()
        self._learner_lost = False
        if self._config.rollout.sleep_while_learning:
            await self._push.push(self.progress.step)

    async def _evaluate_if_due(self) -> None:
        """Evaluate before the first step, after the last and every `every_steps`, each once, however often it is resumed."""
        step, every = self.progress.step, self._config.evaluation.every_steps
        due = step in (0, self._config.run.steps) or (every and step % every == 0)
        if not (self._prepared.held_out and due) or self.progress.evaluated == step:
            return
        accuracy = await self._evaluate()
        if step == 0:
            self.progress = replace(self.progress, before=accuracy)
        elif step == self._config.run.steps:
            self.progress = replace(self.progress, after=accuracy)
        self.progress = replace(self.progress, evaluated=step)

    async def _evaluate_last(self) -> None:
        """After a limit: evaluate what was saved, as far as the reserve goes."""
        step = self.progress.step
        if not self._prepared.held_out or self.progress.evaluated == step:
            return
        try:
            self._budget.check("evaluation", "end")
            await self._workers.give_up()
            self.progress = replace(self.progress, after=await self._evaluate(), evaluated=step)
        except LimitReached:
            self._display.warn(f"no evaluation after step {step}: it would cost more than is left")

    def _draw(self, positions: Sequence[int]) -> list[Drawn]:
        indices = [index for position in positions for index in self._order.draw(position, 1)]
        return [(position, self._prepared.problems[index]) for position, index in zip(positions, indices, strict=True)]

    def _training_requests(self, drawn: Sequence[Drawn]) -> list[Request]:
        rollout = self._config.rollout
        return self._requests(drawn, "train", 0, rollout.completions_per_problem, rollout.temperature)

    def _requests(
        self, drawn: Sequence[Drawn], phase: str, step: int, samples: int, temperature: float
    ) -> list[Request]:
        return [
            Request(
                position=position,
                sample=sample,
                prompt_ids=problem.prompt_ids,
                seed=completion_seed(self._config.run.seed, phase, step, position, sample),
                temperature=temperature,
                max_tokens=self._config.rollout.max_completion_tokens,
            )
            for position, problem in drawn
            for sample in range(samples)
        ]

    def _decode(self, completions: Sequence[np.ndarray]) -> list[str]:
        texts = completion_texts(completions, self._prepared.tokenizer, self._prepared.eos_ids)
        return [self._prepared.opening + text for text in texts]

    async def _evaluate(self) -> Interval:
        """Held-out accuracy of the current policy with its 95 % interval; recorded like every other completion."""
        evaluation, step = self._config.evaluation, self.progress.step
        self._display.status(f"evaluating policy version {step} on {len(self._prepared.held_out)} held-out problems")
        drawn = list(enumerate(self._prepared.held_out))
        requests = self._requests(drawn, "evaluation", step, evaluation.samples, evaluation.temperature)
        saved = self._saved == (step, "kept")
        with self._budget.timing("evaluation"):
            work = self._collector.collect(drawn, requests, step)
            groups = await self._interruptible(work, *(("end",) if saved else ("kept", "end")))
        check_judged(groups, step, self._config.rewards.max_unjudged_share)
        correct = correctness(groups)
        interval, unjudged = mean_interval(correct), int(np.isnan(correct).sum())
        self._record.write(step, self._attempt, groups, self._texts(groups), None, "evaluation")
        assert self._metrics is not None
        figures = {"accuracy": interval.mean, "low": interval.low, "high": interval.high, "unjudged": float(unjudged)}
        self._metrics.write(step, figures, "evaluation")
        doubt = f"; {unjudged} of {correct.size} not judged, the interval holds either way" if unjudged else ""
        self._display.note(f"held-out accuracy after {step} steps: {interval}{doubt}")
        return interval

    async def _write(
        self, step: int, batch: Batch, update: Update, report: PushReport, measured: dict[str, float]
    ) -> None:
        """Record, metrics, progress and display of a finished step; only then is the step done."""
        figures = step_metrics(batch.drawn) | batch.metrics() | age_metrics(batch.groups, step - 1)
        verdicts = [verdict for group in batch.drawn for verdict in group.verdicts]
        correct = self.progress.correct + sum(verdict.status is Status.CORRECT for verdict in verdicts)
        cost = self._budget.metrics(measured["step_s"], correct)
        if batch.replaced:  # first: rows without those of their step do not count
            self._record.write(step, self._attempt, batch.replaced, self._texts(batch.replaced), None, "replaced")
        self._record.write(step, self._attempt, batch.groups, self._texts(batch.groups), update.advantages)
        assert self._metrics is not None
        push = {"push_bytes": report.nbytes, "probe_difference": report.probe_difference}
        self._metrics.write(step, figures | update.metrics | measured | push | cost)
        tokens = int(figures["sampled_tokens"])
        self.progress = replace(
            self.progress.used(group.position for group in batch.drawn),
            step=step,
            tokens=self.progress.tokens + tokens,
            correct=correct,
            seconds=self.progress.seconds + measured["step_s"],
            after=None,
        )
        self._budget.ahead = self._works_ahead()
        self._budget.write()
        unjudged = int(figures["timeouts"] + figures["errors"])
        if unjudged:
            self._display.warn(f"step {step}: {unjudged} completions could not be judged and were left out of the loss")
        if warning := unusable_warning(batch.drawn, step):
            self._display.warn(warning)
        self._display.step(
            StepFigures(
                step=step,
                reward=figures["reward"],
                accuracy=figures["accuracy"],
                truncated_share=figures["truncated_share"],
                mean_length=figures["mean_length"],
                groups_with_spread=int(figures["groups_with_spread"]),
                groups=len(batch.drawn),
                clipped_share=update.metrics["clipped_share"],
                kl=update.metrics["kl"] if self._config.loss.kl_beta > 0 else None,
                tokens=tokens,
                seconds=measured["step_s"],
            )
        )
        if warning := self._learning.step(step, figures, batch.drawn):
            self._display.warn(warning)

    def _texts(self, groups: Sequence[Group]) -> list[list[str]]:
        return [self._decode([completion.token_ids for completion in group.completions]) for group in groups]

    async def _save_if_due(self) -> None:
        if self.progress.step % self._config.checkpoint.every_steps == 0:
            await self._save("kept")
        elif self._budget.limited and not self._budget.measured("kept", "resume"):
            await self._save("resume")  # for a figure of what must be set aside for the last one
        elif time.monotonic() - self._saved_at > 60 * self._config.checkpoint.every_minutes:
            await self._save("resume")

    async def _save(self, kind: Kind) -> None:
        """Commit a checkpoint of the current step, unless it is already there."""
        step = self.progress.step
        if self._saved in ((step, kind), (step, "kept")):
            return
        with self._budget.timing(kind):
            folder = self._store.begin(step)
            try:
                async with self._weights:
                    await self._with_learner(partial(self._write_state, folder, kind))
            except (RunError, OSError) as error:
                raise self._store.abandon(step, error) from error
            await asyncio.to_thread(self._store.commit, step, kind, asdict(self.progress))
        self._saved, self._saved_at = (step, kind), time.monotonic()

    async def _give_up_sampling(self) -> None:
        """Before the last save: nothing that still samples may want the learner. Here a stop has ended it already."""

    async def _write_state(self, folder: Path, kind: Kind) -> None:
        await self._learners.save(folder)
        if kind == "kept":
            await self._learners.export(folder / "policy")
            self._prepared.files.write(folder / "policy")

    def stop(self) -> None:
        """Ask the run to stop at the next point where nothing is lost."""
        self._stop.set()

    async def _interruptible(self, work: Awaitable[T], *then: Work) -> T:
        """The result of `work`. It is abandoned with Stopped as soon as stop() is called, and with LimitReached when the budget
        leaves no more than `then` is expected to take."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            while not (task.done() or self._stop.is_set()):
                wait_s = min(_LOOK_S, 0.01 + self._budget.check(*then))
                await asyncio.wait({task, stop}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise Stopped
            return task.result()
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.wait({task, stop}, timeout=_LOOK_S)  # or it would see what it waits for being ended

    async def close(self) -> None:
        """End the engines and give the places back."""
        if self._metrics is not None:
            self._metrics.close()
        ends = (
            self._workers.stop(),
            self._learners.stop(),
            within(30, "the reward pool", "close", self._rewards.close.remote()),
        )
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(error, RunError):
                self._display.warn(f"while closing: {error}")
            elif isinstance(error, BaseException):
                raise error
        self._placement.release()


def probe_batch(problems: Sequence[Problem], size: int = 4) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The first prompts, each cut after its first token: every later token is scored by learner and engines."""
    return [(problem.prompt_ids[:1], problem.prompt_ids[1:]) for problem in problems[:size]]
