"""Broadcast transports: learner rank 0 sends every bucket to one group per engine (gloo on CPUs, NCCL on GPUs).

An engine that dies or does not take a bucket in time does not hold up the others.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import methodcaller

import torch

from actors.weights.groups import BroadcastGroup, GlooGroup, NcclGroup, joined
from actors.weights.transport import Ends, Outgoing, PushGroup, Receiver, Sender, Transport
from openrs_ray.errors import RunError
from openrs_ray.run.spans import span
from openrs_ray.weights.digest import digest


@dataclass(frozen=True, slots=True)
class Sent:
    """Result of one push on rank 0; empty on other ranks."""

    digests: list[int]
    failed: dict[int, str]
    """Reasons, by engine that was left behind."""


class BroadcastSender(Sender):
    def __init__(self, weights: Outgoing, kind: type[BroadcastGroup]) -> None:
        super().__init__(weights)
        self._kind = kind
        self.groups: dict[int, BroadcastGroup] = {}  # by engine, on rank 0

    def join(self, engine: int, group: PushGroup) -> None:
        if self.weights.rank == 0:
            self._leave(engine)
            half = replace(group, deadline_s=group.deadline_s / 2)  # gives an engine up while the others still wait
            self.groups[engine] = joined(self._kind, half, 0, self.weights.device)

    def send(self, engines: Sequence[int]) -> Sent:
        weights = self.weights
        digests: list[torch.Tensor] = []
        failed: dict[int, str] = {}
        ends = time.monotonic() + weights.deadline_s
        for index, (bucket, tensors) in enumerate(weights.gather()):
            if weights.rank != 0:
                continue
            with span("pack_bucket", bucket=index):
                buffer = bucket.pack(tensors, weights.buffer)
                digests.append(digest(buffer))
            with span("send_bucket", bucket=index, nbytes=bucket.nbytes):
                self._each(engines, failed, methodcaller("broadcast", buffer))
                # Half of the time left, for each bucket: if an engine stalls, the others still get theirs before they give up.
                self._each(engines, failed, lambda group: group.wait((time.monotonic() + ends) / 2))
        return Sent([int(value) for value in digests], failed)

    def _each(self, engines: Sequence[int], failed: dict[int, str], act: Callable[[BroadcastGroup], None]) -> None:
        for engine in engines:
            if engine not in failed:
                try:
                    act(self.groups[engine])
                except RunError as error:
                    failed[engine] = str(error)
                    self._leave(engine)

    def _leave(self, engine: int) -> None:
        if group := self.groups.pop(engine, None):
            group.close()


class BroadcastReceiver(Receiver):
    def __init__(self, group: BroadcastGroup, device: torch.device) -> None:
        self.group = group
        self._device = device

    def receive(self, nbytes: int, parcel: None) -> torch.Tensor:
        buffer = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        self.group.broadcast(buffer)
        self.group.wait()
        return buffer

    def close(self) -> None:
        self.group.close()


class Broadcast(Transport):
    """Base of the transports that broadcast over a `kind` of group."""

    kind: type[BroadcastGroup]

    def sender(self, weights: Outgoing) -> Sender:
        return BroadcastSender(weights, self.kind)

    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        return BroadcastReceiver(joined(self.kind, group, rank, device), device)

    async def transfer(self, ends: Ends) -> list[int]:
        receiving = asyncio.ensure_future(ends.receive(ends.buckets))
        try:
            sent: Sent = (await ends.send("send", ends.engines))[0]
        finally:
            # Also when the learner is lost: engines that wait for it in vain must be known as lost before the next push.
            await receiving
        for engine, reason in sent.failed.items():
            ends.lose(engine, reason)
        return sent.digests


class Gloo(Broadcast):
    kind = GlooGroup


class Nccl(Broadcast):
    kind = NcclGroup
