"""The weight push as the trainer sees it: from the learner to every engine, with a version, a deadline and a proof.

Invariant: when `push(v)` returns, every worker of every engine that serves has received exactly the bytes that the learner sent
as version v, has loaded them, and samples with them. An engine that dies or stalls on the way is left behind and replaced;
bytes that arrive other than they left are an error of the run.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from actors.learner.group import LearnerGroup, LearnerLost
from actors.rollout.pool import EnginePool
from actors.rollout.supervisor import Replica
from openrs_ray.config.schema import Push
from openrs_ray.errors import RunError

_FOLLOWS = 0.1
"""An engine must move at least by this share of the learner's move. Two correct pushes of a tiny bfloat16 model at a learning
rate of 1e-6: 2.4 and 3.9; lost ones: 0."""
_LEAST_MOVE = 1e-4
_LEAST_SHARE = 0.05
"""A smaller move of the learner, or a smaller share of what it and the engine differ by, may be lost in the engine's rounding to
bfloat16 on the few tokens of a probe."""

Probe = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""(prompt ids, completion ids) pairs that learner and engines both score."""


@dataclass(frozen=True, slots=True)
class PushReport:
    seconds: float
    nbytes: int
    probe_difference: float | None
    """Mean absolute difference of log-probability per probe token; None when this push was not probed."""


class WeightPush:
    """push() after every optimizer step, revive() when all engines were lost."""

    def __init__(self, learners: LearnerGroup, workers: EnginePool, transport: str, config: Push, probe: Probe) -> None:
        self._learners = learners
        self._workers = workers
        self._transport = transport
        self._config = config
        self._probe = probe
        self._buckets: list[list[tuple[str, str, list[int]]]] = []
        self._nbytes = 0
        self._life = 0
        """Of the learner that the buckets were agreed on with."""
        self.version = -1
        """The last version that was pushed."""

    async def _agree(self) -> None:
        """Agree with the learner on what a push consists of; the engines join it at their first push."""
        buckets = await self._learners.push_buckets()
        self._buckets = [
            [(spec.name, spec.dtype, list(spec.shape)) for spec in bucket.parameters] for bucket in buckets
        ]
        self._nbytes = sum(bucket.nbytes for bucket in buckets)
        self._life = self._learners.life

    async def revive(self) -> None:
        """Bring the weights of the last push to engines that have started again, when none serves any more."""
        async with self._learners.weights:
            if not self._workers.supervisor.serving:
                await self.push(self.version)

    async def push(self, version: int) -> PushReport:
        """Bring the learner's weights to every engine that lives as policy `version`; the others are replaced meanwhile.

        Raises:
            RunError: bytes differ, a parameter was not loaded, or the probe disagrees; the learner failed; no engine took
                the weights, however often it was started again.
        """
        return await self._learners.run(partial(self._push, version))

    async def _push(self, version: int) -> PushReport:
        if self._life != self._learners.life:
            await self._agree()
        started = time.monotonic()
        self._workers.supervisor.grow()
        while not (arrived := await self._push_to(await self._workers.supervisor.ready(), version)):
            pass  # all of them were lost on the way: when the first has started again, to that one
        seconds = time.monotonic() - started
        due = [worker for worker in arrived if worker.probed is None or version % self._config.probe_every == 0]
        difference = await self._probe_difference(version, due) if due else None
        self._workers.supervisor.serve(arrived)
        self.version = version
        return PushReport(seconds, self._nbytes, difference)

    async def _push_to(self, workers: list[Replica], version: int) -> list[Replica]:
        """Those that hold the weights now, by proof."""
        if self._transport != "ipc":
            for worker in workers:
                await self._join(worker)
        each = self._workers.each
        workers = list(await each(_alive(workers), "begin_push", "pause for a push"))
        digests = await (self._hand_over(workers) if self._transport == "ipc" else self._broadcast(workers))
        receipts = await each(_alive(workers), "end_push", "put the new weights in place", version)
        check_receipts(version, digests, {worker.place: receipt for worker, receipt in receipts.items()})
        return list(receipts)

    async def _join(self, worker: Replica) -> None:
        if worker.joined:
            return
        meeting = await self._learners.meeting(worker.processes.node if worker.processes else None)
        size = self._workers.group_size
        outcomes = await asyncio.gather(
            self._learners.join_push(worker.place, self._transport, meeting, size),
            self._workers.join_push(worker, self._transport, meeting),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, RunError) and not isinstance(outcome, LearnerLost):
                self._workers.supervisor.lost(worker, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome

    async def _broadcast(self, workers: list[Replica]) -> list[int]:
        receive = self._workers.each(workers, "receive", "receive weights", self._buckets)
        receiving = asyncio.ensure_future(receive)
        try:
            sent = await self._learners.send([worker.place for worker in workers])
        finally:
            # Also when the learner is lost: who waits for it in vain is known to be lost before the next push.
            await receiving
        for worker in workers:
            if worker.place in sent.failed:
                self._workers.supervisor.lost(worker, sent.failed[worker.place])
        return sent.digests

    async def _hand_over(self, workers: list[Replica]) -> list[int]:
        digests: list[int] = []
        while staged := await self._learners.stage(first=not digests):
            index = staged[0].index
            if len({part.digest for part in staged}) != 1:
                raise RunError(f"the learner ranks hold different weights in bucket {index} of the push")
            handles: dict[str, list[Any]] = {}
            for part in staged:
                handles |= part.handles
            buckets = [self._buckets[index]]
            workers = list(await self._workers.each(workers, "receive", "receive weights", buckets, handles))
            digests.append(staged[0].digest)
        return digests

    async def _probe_difference(self, version: int, workers: list[Replica]) -> float | None:
        """Worst of these workers; one that is lost meanwhile has no say."""
        score = self._workers.each(workers, "score", "score the probe", self._probe)
        expected, found = await asyncio.gather(self._learners.score(self._probe), score)
        worst = None
        learner = np.concatenate(expected)
        for worker, scores in found.items():
            engine = np.concatenate(scores)
            difference = float(np.abs(engine - learner).mean())
            if not difference <= self._config.probe_tolerance:  # NaN fails too
                raise RunError(
                    f"after the push of policy version {version}, {worker.name} and the learner disagree on the probe "
                    f"batch by {difference:.2g} per token, more than push.probe_tolerance {self._config.probe_tolerance:g}"
                )
            if worker.probed is not None:
                check_followed(version, worker.name, worker.probed, (learner, engine))
            worker.probed = learner, engine
            worst = max(worst or 0.0, difference)
        return worst


def check_followed(
    version: int, name: str, before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray]
) -> None:
    """RunError when the learner's log-probabilities have moved since the last probe and the engine's have stayed.

    The scale is the push itself: an engine that samples with old weights scores as it did, and one that has the new ones moves
    too. (Closer than that they need not agree: in bfloat16 most of a small move is rounding, and a different one on either side.)

    Args:
        before, now: (learner's, engine's) log-probabilities of the probe's tokens, float32 [tokens] each.
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


def check_receipts(version: int, sent: Sequence[int], receipts: Mapping[int, Sequence[dict[str, Any]]]) -> None:
    """Compare what every worker of every engine received with what was sent.

    Args:
        sent: digest of each bucket as it left.
        receipts: by engine, per worker: see `actors.weights.receiver.PushReceiver.receipt`.

    Raises:
        RunError: names the worker and what did not arrive.
    """
    for engine, workers in receipts.items():
        for rank, receipt in enumerate(workers):
            who = f"rollout worker {engine}" + (f" (tensor-parallel rank {rank})" if len(workers) > 1 else "")
            wrong = [i for i, (a, b) in enumerate(zip(sent, receipt["digests"], strict=False)) if a != b]
            if wrong or len(receipt["digests"]) != len(sent):
                raise RunError(
                    f"the push of policy version {version} did not arrive: {who} received {len(receipt['digests'])} of "
                    f"{len(sent)} buckets, and {len(wrong)} of them are not the bytes that were sent"
                )
            for problem, meaning in (("missing", "were not loaded"), ("stale", "still have other values")):
                if receipt[problem]:
                    names = ", ".join(receipt[problem][:3])
                    raise RunError(
                        f"the push of policy version {version} did not take effect on {who}: {len(receipt[problem])} "
                        f"parameters {meaning} ({names}, ...)"
                    )
