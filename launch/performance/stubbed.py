"""The driver's side of a run as it is, over engines, a reward pool and a learner that cost it nothing but their messages."""

import asyncio
import gc
import io
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from actors.cluster.together import Together
from actors.learner.group import LearnerGroup
from actors.loop.collector import Collector, Sampling
from actors.loop.limits import Limits
from actors.loop.lookahead import Lookahead, drawing
from actors.loop.loop import Loop
from actors.loop.push import PushReport
from actors.loop.system import keep_what_is_loaded
from actors.loop.writer import RunWriter
from actors.pools.messages import Judged, SampledItem
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.supervisor import Supervisor
from actors.rollout.worker import Request
from launch.performance.cpu_clock import CpuClock
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Texts
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Completion, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import Bounds, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import Progress

STUB = "stubs"
SAMPLE, JUDGE, LEARN = "completions in", "judge hand-over", "learner hand-over"
_TOGETHER = 4  # completions in a worker's message
_KEPT_TOKENS = 1 << 20
_LETTERS_PER_TOKEN, _WORDS, _VOCABULARY = 4, 4000, 150_000


@dataclass(frozen=True, slots=True)
class Message:
    """An object as Ray sends it: pickled, arrays apart and copied once."""

    pickled: bytes
    arrays: list[bytes]

    @classmethod
    def of(cls, content: Any) -> "Message":
        arrays: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(content, protocol=5, buffer_callback=arrays.append)
        return cls(pickled, [bytes(array.raw()) for array in arrays])

    def open(self) -> Any:
        return pickle.loads(self.pickled, buffers=self.arrays)


@dataclass
class Made:
    """Completions that differ, cut out of random tokens."""

    end_id: int
    tokens: int
    """Of each completion."""
    version: int = 0
    """Of the policy that samples."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self._ids = (rng.zipf(1.2, _KEPT_TOKENS + self.tokens) % _VOCABULARY + self.end_id + 1).astype(np.int32)
        words = rng.integers(ord("a"), ord("z"), (_WORDS, _LETTERS_PER_TOKEN)).astype(np.uint8)
        words[:, 0] = ord(" ")
        self._letters = words[self._ids % _WORDS].tobytes().decode()
        self._logprobs = -rng.exponential(0.4, len(self._ids)).astype(np.float32)

    def text(self, item: SampledItem) -> str:
        """One of about the length that tokens of a trained model have."""
        start = int(item.token_ids[:4] @ (1, 251, 63_001, 15_813_251)) % _KEPT_TOKENS
        return self._letters[start : start + _LETTERS_PER_TOKEN * len(item.token_ids)]

    def start(self, request: Request) -> int:
        return (7919 * request.position + 104_729 * request.sample) % _KEPT_TOKENS

    def completion(self, request: Request, worker: int) -> Completion:
        start, size = self.start(request), self.tokens
        ids = self._ids[start : start + size].copy()
        ids[-1] = self.end_id
        spans = (VersionSpan(self.version, 0, size),)
        logprobs = self._logprobs[start : start + size].copy()
        return Completion(request.position, request.sample, ids, logprobs, "stop", spans, worker)


class Remote:
    """A method of a stub, called as that of an actor."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method

    def options(self, **_: Any) -> "Remote":
        return self


class StubWorker:
    """Stands in for a rollout worker's actor."""

    def __init__(self, made: Made, clock: CpuClock, place: int) -> None:
        self._made, self._clock, self._place = made, clock, place
        self.processes, self.start, self.stop = (Remote(self._nothing) for _ in range(3))
        self.sample = Remote(self._sample)

    async def _nothing(self) -> None:
        return None

    async def _sample(self, requests: Sequence[Request]) -> AsyncIterator[Any]:
        with self._clock.counting(SAMPLE):
            message = Message.of(requests)
        asked: Sequence[Request] = message.open()
        for first in range(0, len(asked), _TOGETHER):
            with self._clock.counting(STUB):
                part = range(first, min(first + _TOGETHER, len(asked)))
                message = Message.of([(number, self._made.completion(asked[number], self._place)) for number in part])
            await asyncio.sleep(0)  # the others' turn
            yield self._opened(message)

    async def _opened(self, message: Message) -> Any:
        with self._clock.counting(SAMPLE):
            return message.open()


class StubEngines(EnginePool):
    """The engine pool as it is, over such actors."""

    def __init__(self, config: RunConfig, prepared: Prepared, workers: Sequence[Any]) -> None:
        self._settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
        places: Any = SimpleNamespace(layout=SimpleNamespace(rollout=range(len(workers))))
        self.supervisor = Supervisor(places, workers.__getitem__, 60, report=lambda text: None, holds_weights=True)
        self._requests: Together[Request, Completion] = Together(self._spread)
        self._reviving = asyncio.Lock()
        self._revive = None


@dataclass
class StubRewards:
    """Stands in for the reward pool's actor."""

    made: Made
    clock: CpuClock

    @cached_property
    def judge_rollouts(self) -> Remote:
        return Remote(self._judge)

    def _judge(self, items: Sequence[SampledItem]) -> Any:
        with self.clock.counting(JUDGE):
            message = Message.of(items)
        return self._judged(message)

    async def _judged(self, message: Message) -> list[Judged]:
        with self.clock.counting(STUB):
            items = message.open()
            answer = Message.of([self._answer(item) for item in items])
        await asyncio.sleep(0)
        with self.clock.counting(JUDGE):
            answers: list[Judged] = answer.open()
        return answers

    def _answer(self, item: SampledItem) -> Judged:
        text = self.made.text(item)
        right = int(item.token_ids[0]) % 2
        status = Status.CORRECT if right else Status.WRONG
        verdict = Verdict(status, {"accuracy": float(right)}, float(right), answer=item.gold[0], seconds=0.004)
        return Judged(verdict, Texts(text, text))


class StubRank:
    """Stands in for a learner rank's actor."""

    def __init__(self, clock: CpuClock) -> None:
        self._clock = clock
        self.train_step = Remote(self._train_step)

    async def _train_step(self, *work: Any) -> dict[str, float]:
        with self._clock.counting(LEARN):
            Message.of(work)
        return {"mismatch_kl": 0.0, "clipped_share": 0.0, "kl": 0.0}


class StubPush:
    """Stands in for the push of the weights."""

    def __init__(self, made: Made) -> None:
        self._made = made

    async def push(self, version: int) -> PushReport:
        self._made.version = version
        return PushReport(0.0, 0, None)


@dataclass
class StubbedRun:
    """One attempt of a run of so many engines; `step()` is a step of the loop, with its record on the disk."""

    config: RunConfig
    prepared: Prepared
    engines: int
    clock: CpuClock = field(default_factory=CpuClock)

    def __post_init__(self) -> None:
        self.made = Made(self.prepared.eos_ids[0], self.config.rollout.max_completion_tokens)
        self._workers = [StubWorker(self.made, self.clock, place) for place in range(self.engines)]
        self._rewards = StubRewards(self.made, self.clock)

    async def start(self) -> None:
        config, prepared = self.config, self.prepared
        self._pool = StubEngines(config, prepared, self._workers)
        await self._pool.start()
        config.run.path.mkdir(parents=True, exist_ok=True)
        attempt = start_attempt(config.run.path, 0, Bounds.of(config))
        budget, display = (
            Budget(config, age_s=0.0),
            RunDisplay("stubbed", config.run.steps, Console(file=io.StringIO())),
        )
        collector = Collector(config, self._pool, self._rewards, {"": SingleTurn()}, lambda text: None)
        plan = Sampling("train", 0, config.rollout.completions_per_problem, config.rollout.temperature)
        drawn = drawing(config, prepared.problems, Progress())
        self._sampling = Lookahead(partial(collector.group, plan=plan), drawn, config.rollout, config.run.steps)
        self._metrics = MetricsLog(config.run.path, attempt)
        watch = LearningWatch(config, ["<end>"])
        self._writer = writer = RunWriter(config, attempt, watch, self._metrics, budget, display)
        learner = LearnerGroup(config, lambda: [StubRank(self.clock) for _ in range(config.placement.num_learner_gpus)])
        unused: Any = None
        push: Any = StubPush(self.made)
        parts = self._sampling, learner, push, writer, unused, unused
        keep_what_is_loaded()
        self._loop = Loop(config, Progress(), *parts, Limits(budget), budget, display)

    async def step(self) -> None:
        await self._loop.step()
        await self._writer.written()

    async def close(self) -> None:
        gc.unfreeze()
        await self._sampling.close()
        await self._pool.stop()
        await self._writer.close()
        self._metrics.close()
