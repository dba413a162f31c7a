"""Pushes the learner's weights to every engine, with a version, a deadline and a proof.

When `push(v)` returns, every worker of every serving engine has received exactly the bytes that the learner sent as version v,
has loaded them, and samples with them. An engine that dies or stalls is replaced; a failed proof ends the run.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from actors.learner.group import LearnerGroup, LearnerLost
from actors.rollout.pool import EnginePool
from actors.rollout.supervisor import Replica
from actors.weights.transport import PushGroup, find
from openrs_ray.algorithm.step_metrics import too_coarse
from openrs_ray.config.quantization import Quantization
from openrs_ray.config.schema import Push
from openrs_ray.errors import RunError
from openrs_ray.run.spans import traced
from openrs_ray.weights.buckets import Bucket

# Least share of the learner's move for an engine. Tiny bfloat16 model, learning rate 1e-6: correct 2.4 and 3.9, lost 0.
_FOLLOWS = 0.1
# Smaller moves, or shares of the difference between learner and engine, may vanish in rounding.
_LEAST_MOVE, _LEAST_SHARE = 1e-4, 0.05

Probe = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""(prompt ids, completion ids) pairs."""


@dataclass(frozen=True, slots=True)
class PushReport:
    seconds: float
    nbytes: int
    probe_difference: float | None
    """Mean absolute difference of log-probability per token."""


@dataclass(eq=False)
class WeightPush:
    """push() after every optimizer step, revive() when all engines were lost."""

    learners: LearnerGroup
    workers: EnginePool
    transport: str
    config: Push
    probe: Probe
    quantization: Quantization = "none"
    """Quantization of the engines."""
    _buckets: tuple[Bucket, ...] = field(default=(), init=False)
    _base: tuple[Bucket, ...] = field(default=(), init=False)  # frozen weights, sent before an engine's first adapters
    _base_digests: tuple[int, ...] = field(
        default=(), init=False
    )  # of the base when it was first sent: it never changes
    _life: int = field(default=0, init=False)  # of the learner that has these buckets
    version: int = field(default=-1, init=False)  # the last that was pushed

    async def revive(self) -> None:
        """Push the last version again when no engine serves."""
        async with self.learners.weights_lock:
            if not self.workers.supervisor.serving:
                await self.push(self.version)

    @traced("push", "version")
    async def push(self, version: int) -> PushReport:
        """RunError when a proof or the learner failed, or no engine took the weights, however often restarted."""
        return await self.learners.run(partial(self._push, version))

    async def _push(self, version: int) -> PushReport:
        if self._life != self.learners.life:
            self._buckets = (await self.learners.each("push_buckets", "list its parameters"))[0]
            self._base = (await self.learners.each("base_buckets", "list its frozen parameters"))[0]
            self._life = self.learners.life
        started = time.monotonic()
        self.workers.supervisor.grow()
        while not (arrived := await self._push_to(await self.workers.supervisor.ready(), version)):
            pass  # all were lost in the push: again, to the first that has restarted
        seconds = time.monotonic() - started
        due = [worker for worker in arrived if worker.probed is None or version % self.config.probe_every == 0]
        difference = await self._probe_difference(version, due) if due else None
        self.workers.supervisor.serve(arrived)
        self.version = version
        return PushReport(seconds, sum(bucket.nbytes for bucket in self._buckets), difference)

    async def _push_to(self, workers: list[Replica], version: int) -> list[Replica]:
        for worker in workers:
            await self._join(worker)
        each = self.workers.each
        paused = list(await each(_alive(workers), "begin_push", "pause for a push"))
        if self._base:
            await self._bring_base(version, [worker for worker in paused if not worker.has_base])
        digests = await self._transfer(_alive(paused), self._buckets)
        receipts = await each(_alive(paused), "end_push", "put the new weights in place", version)
        by_place = {worker.place: receipt for worker, receipt in receipts.items()}
        check_receipts(version, digests, by_place, self._base_digests)
        for worker in receipts:
            worker.has_base = bool(self._base)
        return list(receipts)

    async def _bring_base(self, version: int, workers: list[Replica]) -> None:
        """Send the frozen weights to engines that do not hold them."""
        if workers:
            await self.learners.each("will_send", "choose the frozen weights", True)
            digests = tuple(await self._transfer(workers, self._base))
            if self._base_digests and digests != self._base_digests:
                raise RunError(f"the learner's frozen weights have changed before the push of policy version {version}")
            self._base_digests = digests
            await self.learners.each("will_send", "choose the adapters", False)

    async def _transfer(self, workers: list[Replica], buckets: Sequence[Bucket]) -> list[int]:
        """Digests as sent."""
        return await find(self.transport).transfer(_Ends(self.learners, self.workers, workers, buckets))

    @traced("join")
    async def _join(self, worker: Replica) -> None:
        if worker.joined:
            return
        node = worker.processes.node if worker.processes else None
        meeting = (await self.learners.each("meeting", "find a free port", node))[0]
        group = PushGroup(self.transport, meeting, self.workers.group_size, self.config.deadline_s)
        outcomes = await asyncio.gather(
            self.learners.each("join_push", f"join {worker.name} for pushes", worker.place, group),
            worker.ask(group.deadline_s, "join_push", "join the learner for pushes", group),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, RunError) and not isinstance(outcome, LearnerLost):
                self.workers.supervisor.lost(worker, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        worker.joined = True

    @traced("probe", "version")
    async def _probe_difference(self, version: int, workers: list[Replica]) -> float | None:
        """The workers' largest; None when all are lost meanwhile."""
        score = self.workers.each(workers, "score", "score the probe", self.probe)
        expected, found = await asyncio.gather(self.learners.score(self.probe), score)
        worst = None
        learner = np.concatenate(expected)
        for worker, scores in found.items():
            engine = np.concatenate(scores)
            difference = float(np.abs(engine - learner).mean())
            if not difference <= self.config.probe_tolerance:  # NaN fails too
                coarse = f": {too_coarse(self.quantization)}" if self.quantization != "none" else ""
                raise RunError(
                    f"after the push of policy version {version}, {worker.name} and the learner disagree on the probe "
                    f"batch by {difference:.2g} per token, more than push.probe_tolerance {self.config.probe_tolerance:g}"
                    f"{coarse}"
                )
            if worker.probed is not None:
                check_followed(version, worker.name, worker.probed, (learner, engine))
            worker.probed = learner, engine
            worst = max(worst or 0.0, difference)
        return worst


@dataclass(frozen=True, slots=True)
class _Ends:
    """Implements `actors.weights.transport.Ends`."""

    learners: LearnerGroup
    pool: EnginePool
    workers: Sequence[Replica]
    buckets: Sequence[Bucket]

    @property
    def engines(self) -> list[int]:
        return [worker.place for worker in _alive(self.workers)]

    async def send(self, method: str, *arguments: Any) -> list[Any]:
        return await self.learners.each("sender", "send weights", method, *arguments)

    async def receive(self, buckets: Sequence[Bucket], parcel: Any = None) -> None:
        await self.pool.each(_alive(self.workers), "receive", "receive weights", buckets, parcel)

    def lose(self, engine: int, reason: str) -> None:
        for worker in self.workers:
            if worker.place == engine:
                self.pool.supervisor.lost(worker, reason)


def check_followed(
    version: int, name: str, before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray]
) -> None:
    """RunError when the learner's log-probabilities moved since the last probe and the engine's stayed.

    Only sizes are compared: in bfloat16 a small move is mostly rounding, which differs between the two. `before` and `now` are
    (learner's, engine's), float32 [tokens] each.
    """
    moved, followed = (float(np.abs(b - a).mean()) for a, b in zip(before, now, strict=True))
    rounding = _LEAST_SHARE * float(np.abs(now[0] - now[1]).mean())
    if moved >= max(_LEAST_MOVE, rounding) and followed < _FOLLOWS * moved:
        raise RunError(
            f"the push of policy version {version} did not take effect on {name}: since the last probe the learner's "
            f"log-probabilities moved by {moved:.2g} per token, and the engine's by {followed:.2g}"
        )


def _alive(workers: Iterable[Replica]) -> list[Replica]:
    return [worker for worker in workers if worker.state != "lost"]


def check_receipts(
    version: int, sent: Sequence[int], receipts: Mapping[int, Sequence[dict[str, Any]]], base: Sequence[int] = ()
) -> None:
    """RunError naming worker and fault unless all received `sent` and hold `base`; `receipts`: by engine and worker."""
    for engine, workers in receipts.items():
        for rank, receipt in enumerate(workers):
            who = f"rollout worker {engine}" + (f" (tensor-parallel rank {rank})" if len(workers) > 1 else "")
            wrong = [i for i, (a, b) in enumerate(zip(sent, receipt["digests"], strict=False)) if a != b]
            if wrong or len(receipt["digests"]) != len(sent):
                raise RunError(
                    f"the push of policy version {version} did not arrive: {who} received {len(receipt['digests'])} of "
                    f"{len(sent)} buckets, and {len(wrong)} of them are not the bytes that were sent"
                )
            if list(base) != receipt.get("base", []):
                raise RunError(
                    f"the push of policy version {version} did not arrive: {who} does not hold the frozen weights that the "
                    "adapters are for"
                )
            for problem, meaning in (("missing", "were not loaded"), ("stale", "still have other values")):
                if receipt[problem]:
                    names = ", ".join(receipt[problem][:3])
                    raise RunError(
                        f"the push of policy version {version} did not take effect on {who}: {len(receipt[problem])} "
                        f"parameters {meaning} ({names}, ...)"
                    )
