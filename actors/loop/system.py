"""Starts the actors of a run in order, builds the loop over them, and ends them."""

import asyncio
import gc
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.learner.group import History, LearnerGroup, new_ranks
from actors.learner.rank import LearnerRank
from actors.loop.beginning import beginning
from actors.loop.beside import Beside
from actors.loop.collector import Collector, Samples
from actors.loop.evaluation import Evaluation
from actors.loop.gauges import Gauges
from actors.loop.guard import RunGuard
from actors.loop.limits import Limits
from actors.loop.lookahead import Lookahead, drawing
from actors.loop.loop import Loop
from actors.loop.push import WeightPush
from actors.loop.saving import Saving
from actors.loop.teacher import TeacherTrial
from actors.loop.writer import RunWriter
from actors.pools.environment import CALLS, EnvironmentPool, asking
from actors.pools.reward import JudgeAccess, RewardPool
from actors.rollout.judge_server import JudgeServers
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.cluster.learner_memory import PROBED
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.data.prompt_lengths import PromptLengths
from openrs_ray.data.rests import Rests
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.registry import environments, repliers
from openrs_ray.errors import RunError, UserError
from openrs_ray.preparation.judges import judge_keys
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Problem
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.ledger import Ledger
from openrs_ray.run.metrics import MetricsLog, read_metrics
from openrs_ray.run.progress import RESULT, Progress
from openrs_ray.run.step_settings import StepSettings, check_reference
from openrs_ray.sinks.sinks import Sinks
from openrs_ray.steering.steering import Steering

_CALLS = 100_000
"""Calls that the reward pool works on at once: those that wait for a judge model must not keep others out."""


@dataclass(eq=False)
class System:
    """Actors of one attempt. Life cycle: start() gives the loop over them; close() in any case."""

    config: RunConfig
    prepared: Prepared
    placement: Placement
    display: RunDisplay
    budget: Budget
    limits: Limits
    worker_class: type[RolloutWorker] = RolloutWorker
    rank_class: type[LearnerRank] = LearnerRank
    reward_class: type[RewardPool] = RewardPool
    environments: Mapping[str, Environment] | None = None
    """By task, in the place of the recipe's."""

    def __post_init__(self) -> None:
        config, prepared, placement, warn = self.config, self.prepared, self.placement, self.display.warn
        self.progress = Progress(held_out=len(prepared.held_out))  # where the attempt begins
        kept = config.checkpoint
        self._store = CheckpointStore(config.run.path / "checkpoints", kept.keep_last, kept.keep_policies)
        settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
        self._engines = EnginePool(settings, placement, self.worker_class, warn, lambda: self._push.revive())
        ranks = partial(new_ranks, config, placement, prepared.model_path, self.rank_class)
        history = History(config.run.path, self._store, prepared.problems)
        self._learner = LearnerGroup(config, ranks, self._engines, history, warn)
        transport, probe = placement.layout.transport, probe_batch(prepared.problems)
        quantization = config.rollout.quantization
        self._push = WeightPush(self._learner, self._engines, transport, config.push, probe, quantization)
        rewards = ray.remote(self.reward_class).options(
            **placement.reward_options(), max_restarts=-1, max_concurrency=_CALLS
        )
        self._judges = JudgeServers(config, placement)
        keys = judge_keys(config) | dict.fromkeys(self._judges.by_task(), self._judges.key)
        access = JudgeAccess(config.run.path if config.judges else None, keys, self._judges.by_task())
        self._rewards: Any = rewards.remote(config.tasks, access, prepared.own_rewards, prepared.decoder)
        self._environments: Any = None
        if placement.layout.environment_cpus:
            pool = ray.remote(EnvironmentPool).options(
                **placement.environment_options(), max_restarts=-1, max_concurrency=CALLS
            )
            self._environments = pool.remote(repliers(config, prepared.tokenizer), config.tasks)
        self._closing = AsyncExitStack()
        self._closing.push_async_callback(self._end_actors)

    async def start(self) -> Loop:
        """Start all actors, from the newest good checkpoint if there is one, and prove the first push.

        Raises:
            UserError: no checkpoint is whole, or the resume's settings do not go with the run's changes.
            RunError: an actor did not start. Stopped, LimitReached.
        """
        checkpoint = await self._newest_checkpoint()
        self.display.status("starting the learner and the rollout engines")
        await self.limits.interruptible(self._start_actors(checkpoint), "end")
        (self.config.run.path / RESULT).unlink(missing_ok=True)  # of a run that goes on
        await asyncio.to_thread(Ledger(self.config.run.path).note, "start", only_news=True)  # what follows may fail
        loop = self._loop(checkpoint)
        self.display.status("pushing the first weights")
        async with self._learner.weights_lock:
            await self._push.push(self.progress.step)
        self.budget.started()
        keep_what_is_loaded()
        return loop

    async def _newest_checkpoint(self) -> Checkpoint | None:
        self._store.open()
        begun = await asyncio.to_thread(beginning, self.config.run.path, self._store, self.progress.held_out)
        self.progress, checkpoint = begun.progress, begun.checkpoint
        for damage in begun.damages:
            self.display.warn(damage)
        if checkpoint is not None:
            self.display.status(f"resuming from step {checkpoint.step}")
            earlier = [line for line in read_metrics(self.config.run.path) if line["step"] <= checkpoint.step]
            curves = ([line.get(name) for line in earlier] for name in ("reward", "accuracy"))
            self.display.resumed(checkpoint.step, *curves)
        elif begun.damages:
            raise UserError("no checkpoint of this run is whole: start anew under another run.name")
        check_reference(self.config, self.progress.changes)
        return checkpoint

    async def _start_actors(self, checkpoint: Checkpoint | None) -> None:
        trial = TeacherTrial(self.config, self.prepared, self.placement, self._collector, self.display)
        if trial.due:
            await self._judges.start()
            with self.budget.once():
                await trial.measure()
            self.display.status("starting the learner and the rollout engines")
            await self._start_engines_and_learner(checkpoint)
        else:
            await asyncio.gather(self._judges.start(), self._start_engines_and_learner(checkpoint))
        if self.config.served_judges:
            deadline_s = max(judge.deadline_s for judge in self.config.served_judges)
            await within(2 * deadline_s, "the reward pool", "ask the judge models", self._rewards.probe_served.remote())
        if checkpoint is not None:
            self._store.discard_newer(checkpoint.step)

    async def _start_engines_and_learner(self, checkpoint: Checkpoint | None) -> None:
        if self.config.placement.colocated:
            await self._engines.start()  # alone: vLLM looks at what is free on the GPU while it starts
            await self._learner.start(checkpoint)
        else:
            await asyncio.gather(self._engines.start(), self._learner.start(checkpoint))

    def _collector(self, engines: Samples) -> Collector:
        answering = self.environments or self._answering()
        rewarding = self.display.warn, self.budget.judged, self.prepared.own_rewards, self.display.log
        return Collector(self.config, engines, self._rewards, answering, *rewarding)

    def _loop(self, checkpoint: Checkpoint | None) -> Loop:
        config, prepared, progress = self.config, self.prepared, self.progress
        budget, display, limits = self.budget, self.display, self.limits
        collector = self._collector(self._engines)
        mixture = Mixture.of(config.run.seed, config.tasks, prepared.sizes)
        rests = Rests(mixture, config.tasks, progress.streaks, progress.step)
        lengths = PromptLengths.of(config.rollout, mixture, prepared.problems)
        drawn = drawing(config, prepared.problems, progress, rests, lengths)
        settings = StepSettings.of(config, progress.changes)
        asked = config.rollout, config.run.steps, settings
        sampling = Lookahead(collector.training_group, drawn, *asked, rests=rests, lengths=lengths)
        attempt = start_attempt(config.run.path, progress.step, AttemptSettings.of(config))
        gauges = Gauges(config.run.name, config.run.steps, progress.tokens)
        sinks = Sinks.of(config, attempt, display.note, display.warn, progress.step)
        metrics = MetricsLog(config.run.path, attempt, sinks, gauges.write)
        beside, guard = Beside(), None
        if config.guard.action != "off":
            guard = RunGuard(config, attempt, self._store, display, beside.done, budget)
        watch = LearningWatch(config, prepared.tokenizer.convert_ids_to_tokens(list(prepared.eos_ids)))
        writer = RunWriter(
            config,
            attempt,
            watch,
            metrics,
            budget,
            display,
            rests,
            beside,
            prepared.decoder.decoder,
            *([guard.seen] if guard else []),
        )
        saved = (checkpoint.step, checkpoint.kind) if checkpoint else None
        writer.begin(checkpoint)
        keeping = prepared.files, writer.written, saved, writer.committed
        saving = Saving(config.checkpoint, self._store, self._learner, budget, *keeping)
        held_out, give_up = prepared.held_out, self._engines.give_up
        evaluation = Evaluation(
            config, held_out, collector.group, give_up, saving.is_kept, writer, limits, budget, display
        )
        watching = asyncio.ensure_future(gauges.watch(partial(self._sample, collector, sampling)))
        self._closing.callback(watching.cancel)
        self._closing.push_async_callback(self._close_metrics, metrics)
        self._closing.push_async_callback(writer.close)
        self._closing.push_async_callback(sampling.close)
        parts = sampling, self._learner, self._push, writer, saving, evaluation
        known = [line for line in read_metrics(config.run.path) if line["step"] <= progress.step]
        steering = Steering.of(config, attempt, progress.changes, known, display.note)
        return Loop(config, progress, *parts, limits, budget, display, steering, guard)

    def _sample(self, collector: Collector, sampling: Lookahead, gauges: Gauges) -> None:
        """Figures of the present moment."""
        engines = self._engines.supervisor
        gauges.set("engines", "Engines that serve", len(engines.serving))
        in_hand = sum(replica.sampling for replica in engines.serving)
        for place, count in (("engines", in_hand), ("reward_pool", collector.judging)):
            gauges.set("waiting_completions", "Completions that are being sampled, or judged", count, place=place)
        for state, count in (("ready", sampling.ready), ("under_way", len(sampling) - sampling.ready)):
            gauges.set("admitted_groups", "Groups for this step and later ones, by state", count, state=state)
        losses = {"engine": engines.losses, "learner": self._learner.losses, "reward_pool": collector.rewards.losses}
        for component, count in losses.items():
            gauges.count("losses_total", "Processes lost in this attempt", count, component=component)
        replaced = {"engine": engines.replacements, "learner": self._learner.life - 1}
        for component, count in replaced.items():
            gauges.count("replacements_total", "Processes started in a lost one's place", count, component=component)

    async def _close_metrics(self, metrics: MetricsLog) -> None:
        metrics.close()
        for unsent in await asyncio.to_thread(metrics.sinks.close):
            self.display.warn(unsent)

    def _answering(self) -> Mapping[str, Environment]:
        config, prepared, ask = self.config, self.prepared, None
        if self._environments is not None:
            ask = asking(self._environments, config.rollout.deadline_s, self.display.warn, self.display.log)
        return environments(config.tasks, prepared.tokenizer, prepared.eos_ids, ask)

    async def close(self) -> None:
        """End the actors and release the places."""
        gc.unfreeze()
        await self._closing.aclose()

    async def _end_actors(self) -> None:
        ends = [
            self._engines.stop(),
            self._learner.stop(),
            self._judges.end(),
            within(30, "the reward pool", "close", self._rewards.close.remote()),
        ]
        if self._environments is not None:
            ends.append(within(30, "the environment pool", "close", self._environments.close.remote()))
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(error, RunError):
                self.display.warn(f"while closing: {error}")
            elif isinstance(error, BaseException):
                raise error
        self.placement.release()


def keep_what_is_loaded() -> None:
    """Exempt long-lived objects, mostly modules, from garbage collection, which would otherwise go through them in every step."""
    gc.collect()
    gc.freeze()


def probe_batch(problems: Sequence[Problem], size: int = PROBED) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """First prompts, each cut after its first token: every later token is scored."""
    return [(problem.prompt_ids[:1], problem.prompt_ids[1:]) for problem in problems[:size]]
