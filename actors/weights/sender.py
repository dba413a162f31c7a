"""The sending end of a weight push, inside the learner ranks.

Rank 0 is the only sender by broadcast; under ZeRO-3 the other ranks take part in gathering each bucket. Over `ipc` every rank
stages each bucket in a buffer of its own that the engines on the same GPU read.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from actors.cluster.meeting import LOOPBACK, Meeting
from actors.cluster.processes import Processes, own_processes
from actors.learner.rank import LearnerRank
from actors.weights.transport import BroadcastGroup, export_ipc, join_group
from openrs_ray.errors import RunError
from openrs_ray.run.spans import span
from openrs_ray.weights.buckets import Bucket, plan_buckets
from openrs_ray.weights.digest import digest

Gather = Callable[[], Iterator[tuple[Bucket, list[torch.Tensor]]]]
"""All buckets with their full tensors, valid until the next bucket; called on all ranks."""


@dataclass(frozen=True, slots=True)
class StagedBucket:
    """A bucket that lies ready for the engines on this rank's GPU."""

    index: int
    handles: dict[str, list[Any]]
    digest: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What left rank 0 in one push (nothing leaves the others)."""

    digests: list[int]
    """Of every bucket, taken before it left."""
    failed: dict[int, str]
    """Engines that did not take a bucket in time, and what happened."""


class WeightSender:
    """One rank's part in the pushes.

    Life cycle: join() every engine (broadcast transports), one that comes again too, then send() per push; over `ipc` stage() per
    bucket instead, each after the engines have read the one before.
    """

    def __init__(self, rank: int, device: torch.device, largest: int, deadline_s: float, gather: Gather) -> None:
        """`largest`: bytes of the largest bucket, the size of the one staging buffer. `deadline_s`: what the engines have."""
        self._rank = rank
        self._device = device
        self._gather = gather
        self._largest = largest
        self._deadline_s = deadline_s
        self._groups: dict[int, BroadcastGroup] = {}
        self._staging: torch.Tensor | None = None
        self._staged: Iterator[StagedBucket] | None = None
        self._handles: dict[str, list[Any]] | None = None

    def join(self, engine: int, transport: str, meeting: Meeting, world_size: int) -> None:
        """Join an engine's push group as rank 0; other learner ranks are in none."""
        if self._rank == 0:
            self._leave(engine)
            self._groups[engine] = join_group(
                transport, meeting, 0, world_size, meeting.host, self._device, self._deadline_s / 2
            )

    def send(self, engines: Sequence[int]) -> Sent:
        """Broadcast all buckets to these engines. One that does not take a bucket in time is left behind, the others go on."""
        digests: list[torch.Tensor] = []
        failed: dict[int, str] = {}
        ends = time.monotonic() + self._deadline_s
        for index, (bucket, tensors) in enumerate(self._gather()):
            if self._rank != 0:
                continue  # here only for the gathering
            with span("pack_bucket", bucket=index):
                buffer = bucket.pack(tensors, self._buffer())
                digests.append(digest(buffer))
            with span("send_bucket", bucket=index, nbytes=bucket.nbytes):
                self._each(engines, failed, partial(_begin, buffer=buffer))
                # Half of what is left, each time: whoever stalls, there is time for the others before they give up.
                self._each(engines, failed, lambda group: group.wait((time.monotonic() + ends) / 2))
        return Sent([int(value) for value in digests], failed)

    def _each(self, engines: Sequence[int], failed: dict[int, str], act: Callable[[BroadcastGroup], None]) -> None:
        for engine in engines:
            if engine not in failed:
                try:
                    act(self._groups[engine])
                except RunError as error:
                    failed[engine] = str(error)
                    self._leave(engine)

    def _leave(self, engine: int) -> None:
        if group := self._groups.pop(engine, None):
            group.close()

    def stage(self, first: bool) -> StagedBucket | None:
        """Put the next bucket (or the first one) into the shared buffer; None after the last: nothing is gathered any more."""
        if first or self._staged is None:
            self._staged = self._stage_all()
        return next(self._staged, None)

    def _stage_all(self) -> Iterator[StagedBucket]:
        if self._handles is None:
            self._handles = export_ipc(
                self._buffer()
            )  # once: every export must be matched by one release on the other side
        for index, (bucket, tensors) in enumerate(self._gather()):
            with span("pack_bucket", bucket=index):
                value = int(digest(bucket.pack(tensors, self._buffer())))  # reading it waits for the copies
            yield StagedBucket(index, self._handles, value)

    def _buffer(self) -> torch.Tensor:
        # One staging buffer for the whole run: every broadcast is waited for before the next copy into it.
        if self._staging is None:
            self._staging = torch.empty(self._largest, dtype=torch.uint8, device=self._device)
        return self._staging


def _begin(group: BroadcastGroup, buffer: torch.Tensor) -> None:
    group.broadcast(buffer)


class SendingRank(LearnerRank):
    """A learner rank that also sends its weights. Like all of a rank's calls, these go to all ranks at once."""

    def start(self, place: str, token: str) -> None:
        super().start(place, token)
        bucket_bytes = self.config.push.bucket_mib << 20
        self._buckets = plan_buckets(self.parameter_specs(), bucket_bytes)
        largest = max(bucket.nbytes for bucket in self._buckets)
        gather = partial(self.full_parameters, bucket_bytes)
        self._sender = WeightSender(self.rank, self.device, largest, self.config.push.deadline_s, gather)

    def processes(self) -> Processes:
        """This rank's processes, known as soon as it is placed."""
        return own_processes()

    def push_buckets(self) -> tuple[Bucket, ...]:
        """What one push consists of, in order."""
        return self._buckets

    def meeting(self, on_this_node: bool) -> Meeting:
        """A meeting for an engine: on loopback if it is on this node, else on this node's address in the cluster."""
        return Meeting.at(LOOPBACK if on_this_node else ray.util.get_node_ip_address())

    def join_push(self, engine: int, transport: str, meeting: Meeting, world_size: int) -> None:
        self._sender.join(engine, transport, meeting, world_size)

    def send(self, engines: Sequence[int]) -> Sent:
        return self._sender.send(engines)

    def stage(self, first: bool) -> StagedBucket | None:
        return self._sender.stage(first)

    def sees(self, file: str) -> bool:
        """Whether this node sees a file of the run's folder."""
        return Path(file).exists()
