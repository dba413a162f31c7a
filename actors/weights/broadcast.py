"""Broadcast transports: learner rank 0 sends every bucket to one group per engine: over NCCL on GPUs, through shared memory to
engines on its own machine on CPUs, over gloo to others.

Buckets travel in pieces, several at once. An engine that dies or does not take a piece in time does not hold up the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import methodcaller

import torch

from actors.weights.groups import BroadcastGroup, GlooGroup, NcclGroup, joined
from actors.weights.shared import SharedGroup, SharedMemory, SharedReceiver
from actors.weights.staging import SLOTS, Staging, pieces, staging_bytes
from actors.weights.transport import Ends, Outgoing, PushGroup, Receiver, Sender, Transport
from openrs_ray.errors import RunError
from openrs_ray.run.spans import span
from openrs_ray.weights.digest import digest

Kind = Callable[[PushGroup, int, torch.device], BroadcastGroup]


@dataclass(frozen=True, slots=True)
class Sent:
    """Result of one push on rank 0; empty on other ranks."""

    digests: list[int]
    failed: dict[int, str]
    """Reasons, by engine that was left behind."""


class BroadcastSender(Sender):
    """Packs pieces into slots while earlier ones travel, and digests each while it travels."""

    def __init__(self, weights: Outgoing, kind: Kind) -> None:
        super().__init__(weights)
        self._kind = kind
        self.groups: dict[int, BroadcastGroup] = {}  # by engine, on rank 0

    @cached_property
    def slots(self) -> torch.Tensor:
        """Memory of the slots, uint8."""
        return torch.empty(staging_bytes(self.weights.largest), dtype=torch.uint8, device=self.weights.device)

    def join(self, engine: int, group: PushGroup) -> None:
        if self.weights.rank == 0:
            self._leave(engine)
            half = replace(group, deadline_s=group.deadline_s / 2)  # gives an engine up while the others still wait
            self.groups[engine] = joined(self._kind_for(group), half, 0, self.weights.device)

    def _kind_for(self, group: PushGroup) -> Kind:
        return self._kind

    def send(self, engines: Sequence[int]) -> Sent:
        digests: list[torch.Tensor] = []
        failed: dict[int, str] = {}
        ends = time.monotonic() + self.weights.deadline_s
        wait = partial(self._wait, engines, failed, ends)
        if self.weights.rank != 0:
            deque(self.weights.gather(), maxlen=0)  # the ranks gather together
            return Sent([], {})
        staging = Staging(self.slots)
        for index, (bucket, tensors) in enumerate(self.weights.gather()):
            parts = []
            for part in pieces(bucket.nbytes):
                with span("send_bucket", bucket=index):
                    wait(but=SLOTS - 1)  # until the next slot has been read
                with span("pack_bucket", bucket=index, nbytes=part.stop - part.start):
                    piece = staging.take(part.stop - part.start)
                    bucket.pack_part(tensors, part.start, piece)
                    self._each(engines, failed, methodcaller("broadcast", piece))
                    parts.append(digest(piece, part.start))
            digests.append(torch.stack(parts).sum())
        with span("send_bucket", bucket=len(digests) - 1):
            wait(but=0)
        return Sent([int(value) for value in digests], failed)

    def _wait(self, engines: Sequence[int], failed: dict[int, str], ends: float, but: int) -> None:
        # Half of the time left, for each piece: if an engine stalls, the others still get theirs before they give up.
        self._each(engines, failed, lambda group: group.wait((time.monotonic() + ends) / 2, but))

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


class HostSender(BroadcastSender):
    """Hands pieces to engines on its own machine through shared memory, and sends them to others over gloo."""

    def __init__(self, weights: Outgoing) -> None:
        super().__init__(weights, GlooGroup)

    @cached_property
    def _shared(self) -> SharedMemory:
        return SharedMemory(staging_bytes(self.weights.largest))

    @property
    def slots(self) -> torch.Tensor:
        return self._shared.tensor

    def _kind_for(self, group: PushGroup) -> Kind:
        return partial(SharedGroup, self._shared) if group.meeting.within_machine else GlooGroup


class BroadcastReceiver(Receiver):
    """Receives up to a few pieces ahead, into slots of its own."""

    def __init__(self, group: BroadcastGroup, device: torch.device) -> None:
        self.group = group
        self._device = device
        self._arriving: Iterator[torch.Tensor] = iter(())

    def expect(self, sizes: Sequence[int]) -> None:
        self._arriving = self._receive_all([part.stop - part.start for nbytes in sizes for part in pieces(nbytes)])

    def receive(self, nbytes: int, parcel: None) -> torch.Tensor:
        buffer = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        for part, piece in zip(pieces(nbytes), self._arriving, strict=False):
            buffer[part].copy_(piece)
        return buffer

    def _receive_all(self, sizes: Sequence[int]) -> Iterator[torch.Tensor]:
        """Pieces of these sizes, each valid until the next."""
        staging = Staging(torch.empty(staging_bytes(max(sizes)), dtype=torch.uint8, device=self._device))
        begun: deque[torch.Tensor] = deque()
        for number in range(len(sizes)):
            for size in sizes[number + len(begun) : number + SLOTS]:
                begun.append(staging.take(size))
                self.group.broadcast(begun[-1])
            self.group.wait(but=len(begun) - 1)
            if number == len(sizes) - 1:
                del staging  # its memory goes with the last piece, not with the next push
            yield begun.popleft()

    def close(self) -> None:
        self.group.close()


class Broadcast(Transport):
    """Base of the transports that broadcast."""

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
    def sender(self, weights: Outgoing) -> Sender:
        return HostSender(weights)

    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        if group.meeting.within_machine:
            return joined(SharedReceiver, group, rank, device)
        return BroadcastReceiver(joined(GlooGroup, group, rank, device), device)


class Nccl(Broadcast):
    def sender(self, weights: Outgoing) -> Sender:
        return BroadcastSender(weights, NcclGroup)

    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        return BroadcastReceiver(joined(NcclGroup, group, rank, device), device)
