"""The weight push as the trainer sees it: from the learner to every engine, with a version, a deadline and a proof.

Invariant: when `push(v)` returns, every worker of every engine has received exactly the bytes that the learner sent as
version v, has loaded them, and samples with them. Otherwise it raises, and the engines must not be used.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.learners import LearnerGroup
from actors.rollouts import RolloutWorkers
from openrs_ray.config import Push
from openrs_ray.errors import RunError

Probe = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""(prompt ids, completion ids) pairs that learner and engines both score."""


@dataclass(frozen=True, slots=True)
class PushReport:
    seconds: float
    nbytes: int
    probe_difference: float | None
    """Mean absolute difference of log-probability per probe token; None when this push was not probed."""


class WeightPush:
    """Life cycle: connect() once all actors have started, then push() after every optimizer step."""

    def __init__(
        self, learners: LearnerGroup, workers: RolloutWorkers, transport: str, config: Push, probe: Probe
    ) -> None:
        self._learners = learners
        self._workers = workers
        self._transport = transport
        self._config = config
        self._probe = probe
        self._proven = False
        self._buckets: list[list[tuple[str, str, list[int]]]] = []
        self._nbytes = 0

    async def connect(self) -> None:
        """Form the push group: learner rank 0, then the workers of engine 0, 1, ... in order."""
        buckets = await self._learners.push_buckets()
        self._buckets = [
            [(spec.name, spec.dtype, list(spec.shape)) for spec in bucket.parameters] for bucket in buckets
        ]
        self._nbytes = sum(bucket.nbytes for bucket in buckets)
        if self._transport == "ipc":
            return
        host, port = await self._learners.push_address()
        world_size = 1 + self._workers.num_receivers
        await asyncio.gather(
            self._learners.join_push(self._transport, host, port, world_size),
            self._workers.join_push(self._transport, host, port, world_size),
        )

    async def push(self, version: int) -> PushReport:
        """Bring the learner's weights to every engine as policy `version`.

        Raises:
            RunError: a deadline passed, bytes differ, a parameter was not loaded, or the probe disagrees.
        """
        started = time.monotonic()
        await self._workers.begin_push()
        sent = await (self._hand_over() if self._transport == "ipc" else self._broadcast())
        receipts = await self._workers.end_push(version)
        check_receipts(version, sent, receipts)
        seconds = time.monotonic() - started
        difference = await self._probe_difference(version) if self._probe_is_due(version) else None
        return PushReport(seconds, self._nbytes, difference)

    def _probe_is_due(self, version: int) -> bool:
        """At the first push, and then by the version, so that a resumed run probes where the unbroken one does."""
        first, self._proven = not self._proven, True
        return first or version % self._config.probe_every == 0

    async def _broadcast(self) -> list[int]:
        sent, _ = await asyncio.gather(self._learners.send(), self._workers.receive(self._buckets))
        return sent

    async def _hand_over(self) -> list[int]:
        digests: list[int] = []
        while staged := await self._learners.stage(first=not digests):
            index = staged[0].index
            if len({part.digest for part in staged}) != 1:
                raise RunError(f"the learner ranks hold different weights in bucket {index} of the push")
            handles: dict[str, list[Any]] = {}
            for part in staged:
                handles |= part.handles
            await self._workers.receive([self._buckets[index]], handles)
            digests.append(staged[0].digest)
        return digests

    async def _probe_difference(self, version: int) -> float:
        expected, *found = await asyncio.gather(self._learners.score(self._probe), *self._workers.score(self._probe))
        worst = 0.0
        for worker, scores in enumerate(found):
            difference = float(np.abs(np.concatenate(scores) - np.concatenate(expected)).mean())
            if not difference <= self._config.probe_tolerance:  # NaN fails too
                raise RunError(
                    f"after the push of policy version {version}, rollout worker {worker} and the learner disagree on the probe "
                    f"batch by {difference:.2g} per token, more than push.probe_tolerance {self._config.probe_tolerance:g}"
                )
            worst = max(worst, difference)
        return worst


def check_receipts(version: int, sent: Sequence[int], receipts: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Compare what every worker of every engine received with what was sent.

    Args:
        sent: digest of each bucket as it left.
        receipts: per engine, per worker: see `actors.transfer.PushReceiver.receipt`.

    Raises:
        RunError: names the worker and what did not arrive.
    """
    for engine, workers in enumerate(receipts):
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
