"""Both loops as they are, with engines, reward pool and learner replaced by timers; steps, records and attempts are real."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from actors.loop.overlap import OverlappedTrainer
from actors.loop.trainer import Trainer
from system import system_config

from actors.learner.group import Update
from actors.loop.batch import Batch, Drawn
from actors.loop.push import PushReport
from actors.rollout.worker import Request
from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.data.order import Order
from openrs_ray.records import Completion, Group, Problem, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import Bounds, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import Progress

PROBLEMS = [Problem(index, f"{index}+1", (1, 2), (f"{index + 1}",)) for index in range(7)]


class KeptFigures(MetricsLog):
    """Without TensorBoard."""

    def __init__(self, run_folder: Path, attempt: int) -> None:
        super().__init__(run_folder, attempt)
        self._curves: Any = SimpleNamespace(add_scalar=lambda *point: None, flush=lambda: None, close=lambda: None)
        self.kept: list[Mapping[str, Any]] = []

    def write(self, step: int, metrics: Mapping[str, float | int | None], phase: str = "train") -> None:
        super().write(step, metrics, phase)
        self.kept.append(metrics)


class SimulatedTrainer(Trainer):
    """One attempt of a run in a folder. `steps(n)` goes on to step n; progress can be handed to the next attempt."""

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        uniform_share: float = 0.5,
        steps: int = 1000,
        cost: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **rollout: Any,
    ) -> None:
        self._config = system_config(folder, folder, rollout=rollout, run={"steps": steps}, cost=cost or {})
        self._prepared: Any = SimpleNamespace(problems=PROBLEMS)
        self._order = Order(0, len(PROBLEMS), True)
        self._record = CompletionRecord(folder)
        self._stop, self._weights = asyncio.Event(), asyncio.Lock()
        self._warnings: list[str] = []
        self._display: Any = SimpleNamespace(
            step=lambda figures: None, status=lambda text: None, warn=self._warnings.append
        )
        self._learning = LearningWatch(self._config, ["<end>"])
        self._collector: Any = self
        self._config.run.path.mkdir(parents=True, exist_ok=True)
        self._budget = Budget(self._config, age_s=0.0, clock=clock)
        self._attempt = start_attempt(folder, progress.step, Bounds.of(self._config))
        self._metrics = KeptFigures(folder, self._attempt)
        self._uniform_share = uniform_share
        self._times = np.random.default_rng(self._attempt)
        self.progress, self.version = progress, progress.step
        self.sampled: list[int] = []
        self.learned_from = 0
        """Groups that the learner is at work on."""
        self.batches: list[Batch] = []
        self.figures = self._metrics.kept

    async def steps(self, until: int) -> Progress:
        while self.progress.step < until:
            await self._step()
        return self.progress

    async def group(self, position: int, problem: Problem, requests: Sequence[Request]) -> Group:
        self.sampled.append(position)
        version = self.version
        await asyncio.sleep(self._times.pareto(1.2))
        equal = np.random.default_rng(position).random() < self._uniform_share
        completions, verdicts = [], []
        for request in requests:
            ids, logprobs = np.array([request.seed % 1000], dtype=np.int32), np.zeros(1, dtype=np.float32)
            spans = (VersionSpan(version, 0, 1),)
            completions.append(Completion(position, request.sample, ids, logprobs, "stop", spans, 0))
            verdicts.append(Verdict(Status.CORRECT, {}, 1.0 if equal else float(request.sample)))
        return Group(position, problem, tuple(completions), tuple(verdicts))

    async def collect(self, drawn: Sequence[Drawn], requests: Sequence[Request], version: int) -> list[Group]:
        size = self._config.rollout.completions_per_problem
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        return list(await asyncio.gather(*(self.group(*which, part) for which, part in zip(drawn, parts, strict=True))))

    async def _train_and_push(self, groups: Sequence[Group], step: int) -> tuple[Update, float, PushReport]:
        self.learned_from = len(groups)
        await asyncio.sleep(self._times.random())
        self.version, self.learned_from = step, 0
        values = advantages(np.stack([group.rewards() for group in groups]), 1e-4)
        return Update({"clipped_share": 0.0}, values), time.monotonic(), PushReport(0.0, 0, None)

    async def _write(self, step: int, batch: Batch, *rest: Any) -> None:
        await super()._write(step, batch, *rest)
        self.batches.append(batch)

    def _decode(self, completions: Sequence[np.ndarray]) -> list[str]:
        return ["" for _ in completions]


class SimulatedOverlap(OverlappedTrainer, SimulatedTrainer):
    """The asynchronous loop in the same way."""
