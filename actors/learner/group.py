"""The learner as the loop uses it: groups in, `learner.updates_per_batch` optimizer steps on all ranks, weights out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import ray

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.cluster.processes import Processes, end_actor
from actors.learner.rank import LearnerRank
from openrs_ray.algorithm.advantages import TrainingSequence, advantages, taught, without_truncated
from openrs_ray.algorithm.packing import MicroBatch, split
from openrs_ray.algorithm.updates import ages_in_updates, over_updates, shares
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Group, Problem, Scored, TokenLogprobs
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completions import read_groups
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.spans import span, traced
from openrs_ray.run.step_settings import StepSettings

T = TypeVar("T")

_PEERS_S = 10.0  # to wait for the other ranks' errors when one has failed
_REBUILDS = 6  # in a row for one piece of work
_REBUILD_PAUSE_S = 2.0  # before the first, then doubled: Ray takes up to a minute to see that a node is gone


class LearnerLost(RunError):
    """A rank died or no longer answers. Ranks wait for each other: all must be started again."""


@dataclass(frozen=True, slots=True)
class Update:
    metrics: dict[str, float]
    advantages: np.ndarray
    """float64 [groups, completions]; NaN where left out of the loss."""
    scored: asyncio.Future[Scored | None] | None = None
    """Log-probabilities of the tokens, on their way from the ranks; None where a rank was lost meanwhile."""


@dataclass(frozen=True)
class History:
    """Sources of a lost learner's weights: the last checkpoint and the recorded steps since."""

    run_folder: Path
    store: CheckpointStore
    problems: Sequence[Problem]

    async def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """Newest whole checkpoint, and a sentence about each newer, damaged one."""
        return await asyncio.to_thread(self.store.latest_good)

    def groups(self, step: int) -> list[Group]:
        return read_groups(self.run_folder, step, self.problems)

    def settings(self, step: int, config: RunConfig) -> StepSettings:
        """RunError when the metrics lack the step."""
        for line in reversed(read_metrics(self.run_folder)):
            if line["step"] == step:
                return StepSettings.recorded(line, config)
        raise RunError(f"the metrics in {self.run_folder} do not hold step {step}")


@dataclass(frozen=True, eq=False)
class Scores:
    """One rank's log-probabilities of an update, on their way, and whose they are."""

    answer: Any
    batches: Sequence[MicroBatch]
    places: np.ndarray
    """int [sequences, 2]: group and sample of each packed sequence."""

    def by_rollout(self, answer: Sequence[TokenLogprobs]) -> dict[tuple[int, int], TokenLogprobs]:
        found: dict[tuple[int, int], TokenLogprobs] = {}
        for batch, scored in zip(self.batches, answer, strict=True):
            ends = np.cumsum(batch.completion_lengths)[:-1]
            for number, member in enumerate(batch.members):
                own = slice(ends[number - 1] if number else 0, ends[number] if number < len(ends) else None)
                group, sample = self.places[member].tolist()
                found[group, sample] = scored.part(own)
        return found


class Engines(Protocol):
    def aside(self) -> AbstractAsyncContextManager[None]:
        """Held while the ranks start or learn: engines on the same GPUs make room."""

    async def leave_learner(self) -> None:
        """Let go of what is shared with lost ranks."""


def new_ranks(
    config: RunConfig, placement: Placement, model_path: str, rank_class: type[LearnerRank] = LearnerRank
) -> list[Any]:
    """Actors for all ranks; `start` makes their DeepSpeed engines."""
    size = len(placement.layout.learner)
    device = "cpu" if placement.layout.device == "cpu" else "cuda:0"  # a rank sees one GPU: its own
    return [
        ray.remote(rank_class).options(**placement.learner_options(rank)).remote(config, model_path, rank, size, device)
        for rank in range(size)
    ]


@dataclass(eq=False)
class LearnerGroup:
    """All learner ranks; every call goes to all of them and has a deadline.

    With a `history`, `train` and `run` rebuild lost ranks: from the last checkpoint, then by training the steps since on the
    recorded groups, which gives the same bits.
    """

    config: RunConfig
    new_ranks: Callable[[], list[Any]]
    engines: Engines | None = None
    history: History | None = None
    report: Callable[[str], None] = lambda text: None
    """Told of every loss."""

    def __post_init__(self) -> None:
        self._ranks = self.new_ranks()
        self._processes: list[Processes | None] = [None] * len(self._ranks)
        self._lost = False
        self._step = 0  # last step that the weights were trained on
        self._groups: Sequence[Group] = ()  # its groups, which the record may not have yet
        self._settings = StepSettings.of(self.config)  # and its settings
        self.life = 1  # counts starts of the ranks
        self.losses = 0
        self.weights_lock = asyncio.Lock()  # held while the weights are not those of the last finished step

    async def start(self, checkpoint: Checkpoint | None = None) -> None:
        async with self._turn():
            await self._start()
            if self.history:
                await self._check_shared_folder(self.history.run_folder)
            if checkpoint:
                await self.load(checkpoint.folder)
                self._step = checkpoint.step

    async def _start(self) -> None:
        deadline_s = self.config.learner.start_deadline_s
        (address,) = await self._gather(deadline_s, "start", [self._ranks[0].address.remote()])
        self._processes = await self._all("processes", deadline_s, "be placed")
        await self._all("start", deadline_s, "start DeepSpeed", *address)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The ranks' turn on shared GPUs: engines make room, and get their memory back afterwards."""
        if self.engines is None:
            yield
            return
        async with self.engines.aside():
            yield
            if self.config.rollout.sleep_while_learning:
                await self.release_memory()

    async def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """Result of `act`, tried again on rebuilt ranks. LearnerLost when they are lost too often."""
        for rebuilds in range(_REBUILDS):
            try:
                await self._rebuild_if_lost()
                return await act()
            except LearnerLost as error:
                if self.history is None:
                    raise
                self._lost = True
                self.losses += 1
                self.report(f"the learner is lost and is rebuilt from the last checkpoint: {error}")
                await asyncio.sleep(_REBUILD_PAUSE_S * 2**rebuilds)
        await self._rebuild_if_lost()
        return await act()

    async def _rebuild_if_lost(self) -> None:
        if not self._lost or self.history is None:
            return
        async with self._turn():
            await self.stop()
            self._ranks, self._processes = self.new_ranks(), [None] * len(self._ranks)
            if self.engines:
                await self.engines.leave_learner()
            await self._start()
            await self._restore(self.history)
        self._lost, self.life = False, self.life + 1

    async def _restore(self, history: History) -> None:
        checkpoint, damages = await history.newest()
        for damage in damages:
            self.report(damage)
        if checkpoint:
            await self.load(checkpoint.folder)
        for step in range(checkpoint.step + 1 if checkpoint else 1, self._step + 1):
            if step == self._step and self._groups:
                update = await self._train(self._groups, step, self._settings)
            else:
                update = await self._train(history.groups(step), step, history.settings(step, self.config))
            if update.scored:
                update.scored.cancel()  # the record has, or gets, those of the first time

    @traced("train", "step")
    async def train(self, groups: Sequence[Group], step: int, settings: StepSettings | None = None) -> Update:
        """Train on the groups of a step, with its settings (None: the recipe's).

        RunError when no completion can be learned from, the step was not applied, or rebuilding does not mend it.
        """
        settings = settings or StepSettings.of(self.config)
        update = await self.run(partial(self._train_in_turn, groups, step, settings))
        self._step, self._groups, self._settings = step, groups, settings
        return update

    async def _train_in_turn(self, groups: Sequence[Group], step: int, settings: StepSettings) -> Update:
        async with self._turn():
            return await self._train(groups, step, settings)

    async def _train(self, groups: Sequence[Group], step: int, settings: StepSettings) -> Update:
        """Make all updates of a step. If a rank is lost, all of them are made again from the weights before the step."""
        loss, updates = self.config.loss, self.config.learner.updates_per_batch
        rewards = np.stack([group.rewards() for group in groups])
        values = advantages(rewards, loss.advantage_epsilon, loss.advantage)
        learned = taught(values, groups) if loss.kind == "distill" else values
        judged = [part for part in shares(len(groups), updates) if not np.isnan(learned[part]).all()]
        if not judged:
            raise RunError(f"step {step} has no judged completion to learn from: look at the verdicts in the record")
        if loss.truncated_completions == "leave_out":
            values, learned = (without_truncated(each, groups) for each in (values, learned))
        on_the_way: list[Scores] = []
        done = [
            await self._update(groups[part], learned[part], step, settings, part.start, on_the_way) for part in judged
        ]
        scored = asyncio.ensure_future(self._scored(on_the_way, step))
        if updates == 1:
            return Update(done[0], values, scored)
        ages = ages_in_updates([groups[part] for part in judged], step, updates)
        return Update(over_updates(done) | ages, values, scored)

    async def _update(
        self,
        groups: Sequence[Group],
        values: np.ndarray,
        step: int,
        settings: StepSettings,
        first: int,
        on_the_way: list[Scores],
    ) -> dict[str, float]:
        """One optimizer step.

        Args:
            values: advantages, float64 [groups, rollouts].
            first: place of the first group in the step.
            on_the_way: gets the log-probabilities of its tokens.
        """
        loss, learner = settings.loss(self.config.loss), self.config.learner
        sequences = training_sequences(groups, values, loss.tempered)
        local = loss.normalization == "local_micro_batch"
        tokens = completion_tokens(sequences)
        # A group without spread has advantage 0 and adds nothing to the gradient, but for its tokens in the mean; no need to
        # compute that nothing. (KL penalty, entropy and a teacher act everywhere, and the local mean depends on the split.)
        everywhere = local or loss.acts_everywhere
        kept = [place for place, sequence in enumerate(sequences) if everywhere or sequence.advantage != 0]
        useful = [sequences[place] for place in kept]
        left_out = tokens - completion_tokens(useful), len(sequences) - len(useful)
        with span("pack", step=step) as seen:
            batches = split(
                useful,
                len(self._ranks),
                micro_batch_tokens=None if local else learner.micro_batch_tokens,
                micro_batch_sequences=learner.micro_batch_sequences if local else None,
                places=np.flatnonzero(~np.isnan(values)).tolist() if local else None,
            )
            seen["micro_batches"] = len(batches[0])
        metrics: list[dict[str, float]] = await self._gather(
            learner.deadline_s,
            f"train step {step}",
            [
                actor.train_step.remote(batch, tokens, step, *left_out, settings)
                for actor, batch in zip(self._ranks, batches, strict=True)
            ],
        )
        places = np.argwhere(~np.isnan(values))[kept] + (first, 0)
        answers = [actor.token_logprobs.remote() for actor in self._ranks]  # before their next step
        on_the_way += [Scores(answer, share, places) for answer, share in zip(answers, batches, strict=True)]
        return metrics[0]

    async def _scored(self, on_the_way: Sequence[Scores], step: int) -> Scored | None:
        """All ranks' log-probabilities of a step; the record goes without those of a rank that is lost meanwhile."""
        deadline_s, found = self.config.learner.deadline_s, dict[tuple[int, int], TokenLogprobs]()
        try:
            for scores in on_the_way:
                found |= scores.by_rollout(
                    await within(
                        deadline_s, "a learner rank", f"send the log-probabilities of step {step}", scores.answer
                    )
                )
        except RunError as error:
            self.report(f"the record of step {step} lacks the learner's log-probabilities: {error}")
            return None
        return found

    async def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
        """Log-probabilities (temperature 1) under the current weights."""
        scores: list[list[np.ndarray]] = await self.each("score", "score the probe", list(sequences), 1.0)
        return scores[0]

    async def _check_shared_folder(self, run_folder: Path) -> None:
        if not all(await self._all("sees", 60, "look for the run folder", str(run_folder / "config.json"))):
            raise RunError(
                f"the learner's node does not see {run_folder}: put run.folder on a file system that all nodes share"
            )

    async def save(self, folder: Path) -> None:
        await self._all("save", self.config.checkpoint.deadline_s, "save its state", str(folder))

    async def load(self, folder: Path) -> None:
        await self._all("load", self.config.checkpoint.deadline_s, "load its state", str(folder))

    async def export(self, folder: Path) -> None:
        await self._all("export", self.config.checkpoint.deadline_s, "export the policy", str(folder))

    async def release_memory(self) -> None:
        await self._all("release_memory", 60, "give cached memory back")

    async def each(self, method: str, what: str, *arguments: Any) -> list[Any]:
        """Answers in rank order, within the push's deadline."""
        return await self._all(method, self.config.push.deadline_s, what, *arguments)

    async def _all(self, method: str, deadline_s: float, what: str, *arguments: Any) -> list[Any]:
        return await self._gather(
            deadline_s, what, [getattr(actor, method).remote(*arguments) for actor in self._ranks]
        )

    async def _gather(self, deadline_s: float, what: str, calls: Sequence[Any]) -> list[Any]:
        """All ranks' answers. LearnerLost when one died, was late or hangs, whatever the others say."""
        waits = [
            asyncio.ensure_future(within(deadline_s, f"learner rank {rank}", what, call))
            for rank, call in enumerate(calls)
        ]
        try:
            _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_EXCEPTION)
            if pending:  # a rank may complain of a dead peer before Ray says that it died
                _, pending = await asyncio.wait(pending, timeout=_PEERS_S)
            errors = [error for wait in waits if wait.done() and (error := wait.exception())]
        finally:
            for wait in waits:
                wait.cancel()
        for error in errors:
            if isinstance(error, Lost) or pending:
                raise LearnerLost(str(error)) from error
        for error in errors:
            raise error
        return [wait.result() for wait in waits]

    async def stop(self) -> None:
        ends = (end_actor(actor, own) for actor, own in zip(self._ranks, self._processes, strict=True))
        await asyncio.gather(*ends)


def completion_tokens(sequences: Sequence[TrainingSequence]) -> int:
    return sum(sequence.sampled_tokens for sequence in sequences)


def training_sequences(groups: Sequence[Group], values: np.ndarray, tempered: bool = True) -> list[TrainingSequence]:
    """Rollouts that have an advantage; `values`: float64 [groups, rollouts], NaN for those left out.

    With `tempered`, each has the temperature that it was sampled at, which may be that of a stage before.
    """
    return [
        TrainingSequence(
            prompt_ids=np.asarray(group.problem.prompt_ids, dtype=np.int32),
            completion_ids=rollout.token_ids,
            sampler_logprobs=rollout.logprobs,
            advantage=float(advantage),
            sampled=rollout.sampled,
            temperature=group.sampling.temperature if group.sampling and tempered else None,
        )
        for group, row in zip(groups, values, strict=True)
        for rollout, advantage in zip(group.rollouts, row, strict=True)
        if not np.isnan(advantage)
    ]
