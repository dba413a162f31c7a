"""The loop as it is, with engines, reward pool and learner replaced by timers; steps, records and attempts are real."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from system import system_config

from actors.learner.group import Update
from actors.loop.batch import Batch
from actors.loop.beside import Beside
from actors.loop.collector import Sampling
from actors.loop.evaluation import Evaluation
from actors.loop.guard import RunGuard
from actors.loop.limits import Limits
from actors.loop.lookahead import Lookahead, drawing
from actors.loop.loop import Loop
from actors.loop.push import PushReport
from actors.loop.saving import Saving
from actors.loop.writer import RunWriter
from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.data.prompt_lengths import PromptLengths
from openrs_ray.data.rests import Rests
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import Checkpoint, CheckpointStore, Kind
from openrs_ray.run.metrics import MetricsLog, read_metrics
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.seeds import completion_seed
from openrs_ray.steering.steering import Steering

T = TypeVar("T")
PROBLEMS = [Problem(index, f"{index}+1", (1, 2), (f"{index + 1}",)) for index in range(7)]


class KeptFigures(MetricsLog):
    """Without TensorBoard."""

    def __init__(self, run_folder: Path, attempt: int) -> None:
        super().__init__(run_folder, attempt)
        self.kept: list[Mapping[str, Any]] = []

    def write(self, step: int, metrics: Mapping[str, float | int | None], phase: str = "train") -> None:
        super().write(step, metrics, phase)
        self.kept.append(metrics)

    def _open_curves(self) -> Any:
        return SimpleNamespace(add_scalar=lambda *point: None, flush=lambda: None)


@dataclass(frozen=True)
class KeptBatches(RunWriter):
    batches: list[Batch] = field(default_factory=list)

    def write(self, progress: Progress, batch: Batch, *rest: Any) -> Progress:
        self.batches.append(batch)
        return super().write(progress, batch, *rest)


class KeptSaves(CheckpointStore):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.saves: list[tuple[int, Kind]] = []

    def commit(self, step: int, kind: Kind, trainer_state: dict[str, Any]) -> Checkpoint:
        self.saves.append((step, kind))
        return super().commit(step, kind, trainer_state)


class SimulatedLearner:
    """A learner and the push of its weights to the engines."""

    def __init__(self, times: np.random.Generator, version: int, save_s: float) -> None:
        self._times = times
        self._save_s = save_s
        self.weights_lock = asyncio.Lock()
        self.version = version
        """Policy version that the engines hold."""
        self.learned_from = 0
        """Groups that it is at work on."""

    async def run(self, act: Callable[[], Awaitable[T]]) -> T:
        return await act()

    async def train(self, groups: Sequence[Group], step: int, settings: StepSettings) -> Update:
        self.learned_from = len(groups)
        await asyncio.sleep(self._times.random())
        values = advantages(np.stack([group.rewards() for group in groups]), 1e-4)
        return Update({"clipped_share": 0.0, "mismatch_kl": 0.0}, values)

    async def push(self, version: int) -> PushReport:
        self.version, self.learned_from = version, 0
        return PushReport(0.0, 0, None)

    async def save(self, folder: Path) -> None:
        await asyncio.sleep(self._save_s)

    async def export(self, folder: Path) -> None:
        pass


class SimulatedRun:
    """One attempt of a run in a folder. `steps(n)` goes on to step n; progress can be handed to the next attempt."""

    loop_class = Loop

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        uniform_share: float = 0.5,
        steps: int = 1000,
        cost: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        held_out: Sequence[Problem] = (),
        save_s: float = 0.0,
        seed: int | None = None,
        evaluation: dict[str, int] | None = None,
        data: list[dict[str, Any]] | None = None,
        problems: Sequence[Problem] = PROBLEMS,
        guard: dict[str, Any] | None = None,
        checkpoint: dict[str, Any] | None = None,
        **rollout: Any,
    ) -> None:
        """`data`: several data sets, with `problems` of all."""
        run = {"name": folder.name, "folder": str(folder.parent), "steps": steps}
        sections = {"cost": cost or {}, "evaluation": evaluation or {}, "guard": guard or {}}
        sections["checkpoint"] = checkpoint or {}
        self.config = config = system_config(folder, folder, rollout=rollout, run=run, **sections)
        if data is not None:
            self.config = config = RunConfig.model_validate(config.model_dump(mode="json") | {"data": data})
        folder.mkdir(parents=True, exist_ok=True)
        self.said: list[str] = []
        """Warnings."""
        self.told: list[str] = []
        """Decisions."""
        display: Any = SimpleNamespace(
            step=lambda figures: None,
            status=lambda text: None,
            note=lambda text: None,
            samples=lambda texts: None,
            warn=self.said.append,
        )
        attempt = start_attempt(folder, progress.step, AttemptSettings.of(config))
        self._uniform_share = uniform_share
        self._times = np.random.default_rng(attempt if seed is None else seed)
        self.sampled: list[int] = []
        self.dropped = 0
        """How often the engines were told to drop what they sampled."""
        self.budget = Budget(config, age_s=0.0, clock=clock)
        self.learner: Any = SimulatedLearner(self._times, progress.step, save_s)
        self.store = KeptSaves(folder / "checkpoints")
        self.metrics = KeptFigures(folder, attempt)
        watch = LearningWatch(config, ["<end>"])
        mixture = Mixture.of(config.run.seed, config.tasks, Counter(problem.task for problem in problems))
        rests = Rests(mixture, config.tasks, progress.streaks, progress.step)
        beside = Beside()
        self.guard = RunGuard(config, attempt, self.store, display, beside.done, self.budget)
        self.writer = KeptBatches(
            config, attempt, watch, self.metrics, self.budget, display, rests, beside, seen=self.guard.seen
        )
        files: Any = SimpleNamespace(write=lambda folder: None)
        saving = Saving(config.checkpoint, self.store, self.learner, self.budget, files, self.writer.written)
        limits = Limits(self.budget)
        lengths = PromptLengths.of(config.rollout, mixture, problems)
        self.sampling = Lookahead(
            lambda position, problem, settings: self.group(position, problem, Sampling.training(config, settings)),
            drawing(config, problems, progress, rests, lengths),
            config.rollout,
            steps,
            StepSettings.of(config, progress.changes),
            rests=rests,
            lengths=lengths,
        )
        known = [line for line in read_metrics(folder) if line["step"] <= progress.step]
        steering = Steering.of(config, attempt, progress.changes, known, self.told.append)
        self.loop = self.loop_class(
            config,
            progress,
            self.sampling,
            self.learner,
            self.learner,
            self.writer,
            saving,
            Evaluation(
                config,
                held_out,
                self.group,
                self.give_up,
                saving.is_kept,
                self.writer,
                limits,
                self.budget,
                display,
            ),
            limits,
            self.budget,
            display,
            steering,
            self.guard,
        )

    @property
    def progress(self) -> Progress:
        return self.loop.progress

    @property
    def batches(self) -> list[Batch]:
        return self.writer.batches

    @property
    def figures(self) -> list[Mapping[str, Any]]:
        """Of the steps and evaluations of this attempt."""
        return self.metrics.kept

    async def steps(self, until: int) -> Progress:
        while self.progress.step < until:
            await self.loop.step()
        return self.progress

    async def give_up(self) -> None:
        self.dropped += 1

    def seconds(self, plan: Sampling) -> float:
        """How long a group takes."""
        return float(self._times.pareto(1.2))

    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        self.sampled.append(position)
        version = self.learner.version
        await asyncio.sleep(self.seconds(plan))
        equal = np.random.default_rng(position).random() < self._uniform_share
        rollouts, verdicts = [], []
        for sample in range(plan.samples):
            seed = completion_seed(self.config.run.seed, plan.phase, plan.step, position, sample)
            ids, logprobs = np.array([seed % 1000], dtype=np.int32), np.zeros(1, dtype=np.float32)
            spans = (VersionSpan(version, 0, 1),)
            rollouts.append(Rollout.of([Completion(position, sample, ids, logprobs, "stop", spans, 0)]))
            verdicts.append(Verdict(Status.CORRECT, {}, 1.0 if equal else float(sample)))
        texts = ("",) * plan.samples
        return Group(position, problem, tuple(rollouts), tuple(verdicts), texts, plan.settings(self.config))
