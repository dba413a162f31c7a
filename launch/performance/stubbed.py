"""A run with the real driver side, over stubs of engines, reward pool and learner that cost it only their messages."""

import asyncio
import gc
import io
import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from actors.cluster.together import Together
from actors.learner.group import LearnerGroup
from actors.loop.collector import Collector
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
from openrs_ray.algorithm.packing import MicroBatch
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Texts
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Completion, Status, TokenLogprobs, Verdict, VersionSpan
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.steering.steering import Steering

Actors = Callable[..., Any]
"""Makes an actor of `RayStub` from its arguments."""
STUB = "stubs"
SAMPLE, JUDGE, LEARN = "completions in", "judge hand-over", "learner hand-over"
_TOGETHER = 4  # completions in a worker's message
_KEPT_TOKENS = 1 << 20
_MOST_ACTORS = 2  # for the workers; further engines share these
_LETTERS_PER_TOKEN, _WORDS, _VOCABULARY = 4, 4000, 150_000


@dataclass(frozen=True, slots=True)
class Message:
    """An object as Ray sends it: pickled, with its arrays copied separately."""

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
    """Makes completions and verdicts that differ from each other, out of random tokens."""

    end_id: int
    tokens: int
    """Tokens of each completion."""
    version: int = 0
    """Policy version that samples."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self._ids = (rng.zipf(1.2, _KEPT_TOKENS + self.tokens) % _VOCABULARY + self.end_id + 1).astype(np.int32)
        words = rng.integers(ord("a"), ord("z"), (_WORDS, _LETTERS_PER_TOKEN)).astype(np.uint8)
        words[:, 0] = ord(" ")
        self._letters = words[self._ids % _WORDS].tobytes().decode()
        self._logprobs = -rng.exponential(0.4, len(self._ids)).astype(np.float32)

    def batches(self, requests: Sequence[Request], worker: int) -> Iterator[list[tuple[int, Completion]]]:
        """Completions with their requests' numbers, in batches as a rollout worker sends them."""
        for first in range(0, len(requests), _TOGETHER):
            part = enumerate(requests[first : first + _TOGETHER], start=first)
            yield [(number, self._completion(request, worker)) for number, request in part]

    def _completion(self, request: Request, worker: int) -> Completion:
        start, size = (7919 * request.position + 104_729 * request.sample) % _KEPT_TOKENS, self.tokens
        ids = self._ids[start : start + size].copy()
        ids[-1] = self.end_id
        spans, logprobs = (VersionSpan(self.version, 0, size),), self._logprobs[start : start + size].copy()
        return Completion(request.position, request.sample, ids, logprobs, "stop", spans, worker)

    def judged(self, item: SampledItem) -> Judged:
        """A verdict by the first token, and a text of realistic length."""
        start = int(item.token_ids[:4] @ (1, 251, 63_001, 15_813_251)) % _KEPT_TOKENS
        text = self._letters[start : start + _LETTERS_PER_TOKEN * len(item.token_ids)]
        right = int(item.token_ids[0]) % 2
        status = Status.CORRECT if right else Status.WRONG
        verdict = Verdict(status, {"accuracy": float(right)}, float(right), answer=item.gold[0], seconds=0.004)
        return Judged(verdict, Texts(text, text))

    def trained(self) -> dict[str, float]:
        return {"mismatch_kl": 0.0, "clipped_share": 0.0, "kl": 0.0}

    def scored(self, batches: Sequence[MicroBatch]) -> list[TokenLogprobs]:
        """Log-probabilities that differ from the sampler's as rounding does."""
        shift = np.float32(1e-6)
        return [TokenLogprobs(batch.behaviour_logprobs + shift) for batch in batches]


class Remote:
    """A stub's method that is called like an actor's: `method.remote(...)`."""

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
        batches = self._made.batches(message.open(), self._place)
        while True:
            with self._clock.counting(STUB):
                if (batch := next(batches, None)) is None:
                    return
                message = Message.of(batch)
            await asyncio.sleep(0)  # lets other tasks run
            yield self._opened(message)

    async def _opened(self, message: Message) -> Any:
        with self._clock.counting(SAMPLE):
            return message.open()


class StubRewards:
    """Stands in for the reward pool's actor."""

    def __init__(self, made: Made, clock: CpuClock) -> None:
        self._made, self._clock = made, clock
        self.judge_rollouts = Remote(self._judge)

    def _judge(self, items: Sequence[SampledItem]) -> Any:
        with self._clock.counting(JUDGE):
            message = Message.of(items)
        return self._judged(message)

    async def _judged(self, message: Message) -> list[Judged]:
        with self._clock.counting(STUB):
            answer = Message.of([self._made.judged(item) for item in message.open()])
        await asyncio.sleep(0)
        with self._clock.counting(JUDGE):
            answers: list[Judged] = answer.open()
        return answers


class StubRank:
    """Stands in for a learner rank's actor."""

    def __init__(self, made: Made, clock: CpuClock) -> None:
        self._made, self._clock = made, clock
        self.train_step, self.token_logprobs = Remote(self._train_step), Remote(self._token_logprobs)

    async def _train_step(self, *work: Any) -> dict[str, float]:
        with self._clock.counting(LEARN):
            Message.of(work)
        with self._clock.counting(STUB):
            self._scored = Message.of(self._made.scored(work[0]))
        return self._made.trained()

    async def _token_logprobs(self) -> list[TokenLogprobs]:
        with self._clock.counting(LEARN):
            scored: list[TokenLogprobs] = self._scored.open()
        return scored


class RayStub:
    """Stands in for a worker, the reward pool or a rank as an actor of Ray, to include Ray's cost of messages."""

    def __init__(self, end_id: int, tokens: int) -> None:
        self._made = Made(end_id, tokens)

    async def processes(self) -> None:
        return None

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def answers(self) -> None:
        return None

    async def follow(self, version: int) -> None:
        self._made.version = version

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[list[tuple[int, Completion]]]:
        for batch in self._made.batches(requests, 0):
            yield batch
            await asyncio.sleep(0)

    async def judge_rollouts(self, items: Sequence[SampledItem]) -> list[Judged]:
        return [self._made.judged(item) for item in items]

    async def train_step(self, *work: Any) -> dict[str, float]:
        self._scored = self._made.scored(work[0])
        return self._made.trained()

    async def token_logprobs(self) -> list[TokenLogprobs]:
        return self._scored


class StubEngines(EnginePool):
    """The real engine pool, over stubs of workers."""

    def __init__(self, config: RunConfig, prepared: Prepared, workers: Sequence[Any]) -> None:
        self._settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
        places: Any = SimpleNamespace(layout=SimpleNamespace(rollout=range(len(workers))))
        self.supervisor = Supervisor(places, workers.__getitem__, 60, report=lambda text: None, holds_weights=True)
        self._requests: Together[Request, Completion] = Together(self._spread)
        self._reviving = asyncio.Lock()
        self._revive = None


class StubPush:
    """Stands in for the push of the weights."""

    def __init__(self, made: Made, followers: Sequence[Any]) -> None:
        self._made, self._followers = made, followers

    async def push(self, version: int) -> PushReport:
        self._made.version = version
        await asyncio.gather(*(follower.follow.remote(version) for follower in self._followers))
        return PushReport(0.0, 0, None)


@dataclass
class StubbedRun:
    """One attempt of a run with stubs; `step()` makes one step of the loop and waits until its record is on the disk.

    `actors`: makes the stubs as actors of Ray; None keeps them in this process.
    """

    config: RunConfig
    prepared: Prepared
    engines: int
    clock: CpuClock = field(default_factory=CpuClock)
    actors: Actors | None = None

    def __post_init__(self) -> None:
        about = self.prepared.eos_ids[0], self.config.rollout.max_completion_tokens
        made, clock = Made(*about), self.clock
        workers: list[Any]
        if self.actors:
            several = [self.actors(*about) for _ in range(min(self.engines, _MOST_ACTORS))]
            workers = [several[place % len(several)] for place in range(self.engines)]
            self._rewards, self._rank = self.actors(*about), self.actors(*about)
            self._push = StubPush(made, several)
        else:
            workers = [StubWorker(made, clock, place) for place in range(self.engines)]
            self._rewards, self._rank = StubRewards(made, clock), StubRank(made, clock)
            self._push = StubPush(made, ())
        self._workers = workers

    async def start(self) -> None:
        config, prepared = self.config, self.prepared
        self._pool = StubEngines(config, prepared, self._workers)
        await self._pool.start()
        config.run.path.mkdir(parents=True, exist_ok=True)
        attempt = start_attempt(config.run.path, 0, AttemptSettings.of(config))
        budget, display = (
            Budget(config, age_s=0.0),
            RunDisplay("stubbed", config.run.steps, Console(file=io.StringIO())),
        )
        collector = Collector(config, self._pool, self._rewards, {"": SingleTurn()}, lambda text: None)
        drawn = drawing(config, prepared.problems, Progress())
        settings = StepSettings.of(config)
        self._sampling = Lookahead(collector.training_group, drawn, config.rollout, config.run.steps, settings)
        self._metrics = MetricsLog(config.run.path, attempt)
        watch = LearningWatch(config, ["<end>"])
        decoder = prepared.decoder.decoder
        self._writer = writer = RunWriter(config, attempt, watch, self._metrics, budget, display, decoder=decoder)
        learner = LearnerGroup(config, lambda: [self._rank])
        unused: Any = None
        push: Any = self._push
        parts = self._sampling, learner, push, writer, unused, unused
        keep_what_is_loaded()
        steering = Steering(config, attempt)
        self._loop = Loop(config, Progress(), *parts, Limits(budget), budget, display, steering)

    async def step(self) -> None:
        await self._loop.step()
        await self._writer.written()

    async def close(self) -> None:
        gc.unfreeze()
        await self._sampling.close()
        await self._pool.stop()
        await self._writer.close()
        self._metrics.close()
