"""Broadcasts in pieces: packing overlaps sending, receiving overlaps loading, and no slot is used while it is read."""

import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from actors.weights import shared, staging
from actors.weights.broadcast import BroadcastReceiver, BroadcastSender, HostSender
from actors.weights.shared import SharedGroup, SharedMemory, SharedReceiver, map_shared
from actors.weights.staging import SLOTS, Staging
from actors.weights.transport import Outgoing, PushGroup
from openrs_ray.errors import RunError
from openrs_ray.weights.buckets import Bucket, ParameterSpec
from openrs_ray.weights.digest import BLOCK_BYTES, digest
from openrs_ray.weights.meeting import Meeting

CPU = torch.device("cpu")
PIECE = BLOCK_BYTES
TRANSFER_S = 0.02


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE_BYTES", PIECE)


def made(*sizes: int) -> tuple[list[Bucket], list[torch.Tensor]]:
    """Buckets of one parameter each."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator) for size in sizes]
    return [Bucket((ParameterSpec(str(i), "uint8", (size,)),)) for i, size in enumerate(sizes)], tensors


def outgoing(buckets: list[Bucket], tensors: list[torch.Tensor], gather_s: float = 0.0) -> Outgoing:
    def gather() -> Iterator[tuple[Bucket, list[torch.Tensor]]]:
        for bucket, tensor in zip(buckets, tensors, strict=True):
            time.sleep(gather_s)
            yield bucket, [tensor]

    return Outgoing(0, CPU, 20.0, max(bucket.nbytes for bucket in buckets), gather)


class Wire:
    """Both ends of a group without a network, as a stream of a GPU does it: one transfer after the other, in another thread.

    A transfer reads its buffer when it ENDS: a slot that is packed again too early arrives with other bytes.
    """

    def __init__(self, transfer_s: float = TRANSFER_S) -> None:
        self._transfer_s = transfer_s
        self._stream = ThreadPoolExecutor(1)
        self._begun: deque[Future[None]] = deque()
        self.most = 0
        self.arrived: list[torch.Tensor] = []
        self.coming: deque[torch.Tensor] = deque()

    def broadcast(self, buffer: torch.Tensor) -> None:
        self._begun.append(self._stream.submit(self._transfer, buffer))
        self.most = max(self.most, len(self._begun))

    def _transfer(self, buffer: torch.Tensor) -> None:
        time.sleep(self._transfer_s)
        if self.coming:
            buffer.copy_(self.coming.popleft())
        else:
            self.arrived.append(buffer.clone())

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        while len(self._begun) > but:
            self._begun.popleft().result()

    def close(self) -> None: ...


def test_packing_goes_on_while_earlier_pieces_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first transfer does not end before three more pieces are packed: in turn, that would never come."""
    buckets, tensors = made(5 * PIECE + 16, 16, 3 * PIECE, 4 * PIECE)
    packed, wire = threading.Semaphore(0), Wire(0.0)
    pack, transfer = Bucket.pack_part, wire._transfer

    def pack_part(*arguments: Any) -> None:
        pack(*arguments)
        packed.release()

    def held(buffer: torch.Tensor) -> None:
        if not wire.arrived:
            assert all(packed.acquire(timeout=20) for _ in range(SLOTS)), "nothing is packed meanwhile"
        transfer(buffer)

    monkeypatch.setattr(Bucket, "pack_part", pack_part)
    monkeypatch.setattr(wire, "_transfer", held)
    sender = BroadcastSender(outgoing(buckets, tensors), lambda *_: wire)
    sender.groups = {0: wire}
    sent = sender.send([0])
    assert torch.equal(torch.cat(wire.arrived), torch.cat(tensors)) and len(wire.arrived) == 6 + 1 + 3 + 4
    assert sent.digests == [int(digest(tensor)) for tensor in tensors] and not sent.failed
    assert wire.most == SLOTS and sender.slots.nbytes == SLOTS * PIECE, "however large a bucket is"


def test_the_other_ranks_gather_and_send_nothing() -> None:
    buckets, tensors = made(16, 3 * PIECE)
    gathered: list[Bucket] = []

    def gather() -> Iterator[tuple[Bucket, list[torch.Tensor]]]:
        for bucket, tensor in zip(buckets, tensors, strict=True):
            gathered.append(bucket)
            yield bucket, [tensor]

    sender = HostSender(Outgoing(1, CPU, 20.0, 3 * PIECE, gather))
    sender.join(0, PushGroup("gloo", Meeting.at("127.0.0.1"), 2, 1.0))
    sent = sender.send([0])
    assert gathered == buckets and not sent.digests and not sent.failed


def test_a_slot_is_not_packed_while_it_travels() -> None:
    """A transfer that is far slower than packing: the wire would show the later bytes."""
    buckets, tensors = made(9 * PIECE)
    wire = Wire(0.03)
    sender = BroadcastSender(outgoing(buckets, tensors), lambda *_: wire)
    sender.groups = {0: wire, 1: Wire(0.0)}
    sender.send([0, 1])
    assert torch.equal(torch.cat(wire.arrived), tensors[0]) and wire.most == SLOTS


def test_the_next_bucket_arrives_while_one_is_loaded() -> None:
    sizes = [2 * PIECE, 3 * PIECE, 3 * PIECE]
    _, tensors = made(*sizes)
    wire = Wire()
    wire.coming.extend(piece for tensor in tensors for piece in tensor.split(PIECE))
    end = BroadcastReceiver(wire, CPU)
    end.expect(sizes)
    for number, (size, tensor) in enumerate(zip(sizes, tensors, strict=True)):
        assert torch.equal(end.receive(size, None), tensor)
        if number == 0:  # loading: the receiver is not asked for anything
            ends = time.monotonic() + 20
            while len(wire.coming) > 3 and time.monotonic() < ends:
                time.sleep(0.01)
            assert len(wire.coming) == 3, "of 8 pieces, three more than were asked for arrive"
    assert wire.most == SLOTS


def test_a_receiver_keeps_no_slots_between_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    made_slots: list[weakref.ref[torch.Tensor]] = []
    make = Staging.__init__

    def remember(self: Staging, memory: torch.Tensor) -> None:
        made_slots.append(weakref.ref(memory))
        make(self, memory)

    monkeypatch.setattr(Staging, "__init__", remember)
    wire = Wire(0.0)
    _, (tensor,) = made(3 * PIECE)
    wire.coming.extend(tensor.split(PIECE))
    end = BroadcastReceiver(wire, CPU)
    end.expect([tensor.nbytes])
    assert torch.equal(end.receive(tensor.nbytes, None), tensor)
    assert made_slots and made_slots[0]() is None


def join(world_size: int, memory: SharedMemory, deadline_s: float = 20.0) -> tuple[SharedGroup, list[SharedReceiver]]:
    group = PushGroup("gloo", Meeting.at("127.0.0.1"), world_size, deadline_s)
    with ThreadPoolExecutor(world_size) as pool:
        sender = pool.submit(SharedGroup, memory, group, 0, CPU)
        ends = [pool.submit(SharedReceiver, group, rank, CPU) for rank in range(1, world_size)]
        return sender.result(), [end.result() for end in ends]


def test_shared_memory_brings_every_byte_to_all_engines_and_workers() -> None:
    """An engine of two workers and one of one, all from the same slots."""
    buckets, tensors = made(6 * PIECE + 48, 16, PIECE)
    sender = HostSender(outgoing(buckets, tensors))
    groups = [join(3, sender._shared), join(2, sender._shared)]
    sender.groups = {number: group for number, (group, _) in enumerate(groups)}
    ends = [end for _, members in groups for end in members]
    with ThreadPoolExecutor(len(ends)) as pool:
        received = [pool.submit(lambda end: [end.receive(b.nbytes, None) for b in buckets], end) for end in ends]
        sent = sender.send([0, 1])
    assert not sent.failed and sender.slots.nbytes == SLOTS * PIECE
    for one in received:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.result(), tensors, strict=True))
        assert [int(digest(buffer)) for buffer in one.result()] == sent.digests


@pytest.mark.parametrize("foreign", [False, True], ids=["no such file", "another process's file"])
def test_where_one_worker_cannot_map_the_memory_all_of_its_engine_receive_over_gloo(
    foreign: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Engine 0 has two workers, one of which is in another container than the learner; engine 1 maps the memory."""
    other = SharedMemory(SLOTS * PIECE)
    buckets, tensors = made(6 * PIECE + 48, 16, PIECE)
    sender = HostSender(outgoing(buckets, tensors))
    refused = iter([True])

    def first_is_refused(address: str) -> torch.Tensor:
        _, nbytes, mark = address.split()
        path = other.address.split()[0] if foreign else "/proc/1/fd/99999"
        return map_shared(f"{path} {nbytes} {mark}" if next(refused, False) else address)

    monkeypatch.setattr(shared, "map_shared", first_is_refused)
    hidden = join(3, sender._shared)
    groups = [hidden, join(2, sender._shared)]
    assert [group.mapped for group, _ in groups] == [False, True]
    reason = "is not the learner's" if foreign else "cannot be mapped"
    assert reason in caplog.text and caplog.text.count("over gloo instead") == 1
    sender.groups = {number: group for number, (group, _) in enumerate(groups)}
    ends = [end for _, members in groups for end in members]
    with ThreadPoolExecutor(len(ends)) as pool:
        received = [pool.submit(lambda end: [end.receive(b.nbytes, None) for b in buckets], end) for end in ends]
        sent = sender.send([0, 1])
    assert not sent.failed
    for one in received:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.result(), tensors, strict=True))


def test_an_engine_that_stalls_on_shared_memory_costs_the_others_nothing() -> None:
    buckets, tensors = made(8 * PIECE)
    weights = outgoing(buckets, tensors)
    sender = HostSender(Outgoing(0, CPU, 6.0, weights.largest, weights.gather))
    (stalled, _kept), (served, (end,)) = join(2, sender._shared, 3.0), join(2, sender._shared, 6.0)
    sender.groups = {0: stalled, 1: served}
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(end.receive, buckets[0].nbytes, None)
        began = time.monotonic()
        sent = sender.send([0, 1])
        assert time.monotonic() - began < 6.0
    assert list(sent.failed) == [0] and "did not get through" in sent.failed[0]
    assert torch.equal(received.result(), tensors[0])


def test_a_receiver_gives_up_on_a_silent_sender() -> None:
    _, (end,) = join(2, SharedMemory(SLOTS * PIECE), 1.0)
    began = time.monotonic()
    with pytest.raises(RunError, match="did not get through"):
        end.receive(PIECE, None)
    assert time.monotonic() - began < 10


def test_memory_of_another_process_or_none_is_refused() -> None:
    memory, other = SharedMemory(1024), SharedMemory(1024)
    path, nbytes, mark = memory.address.split()
    memory.tensor[:4] = torch.arange(4)
    assert map_shared(memory.address)[:4].tolist() == [0, 1, 2, 3]
    for wrong, reason in {
        f"{other.address.split()[0]} {nbytes} {mark}": "is not the learner's",
        f"/proc/1/fd/99999 {nbytes} {mark}": "cannot be mapped",
        f"{path} 4096 {mark}": "cannot be mapped|is not the learner's",
    }.items():
        with pytest.raises(RunError, match=reason):
            map_shared(wrong)


def test_shared_memory_has_no_name_and_goes_with_its_owner() -> None:
    memory = SharedMemory(1024)
    file = memory.address.split()[0]
    with open(file, "rb") as opened:
        assert opened.read(1) == b"\0"
    address = memory.address
    del memory
    with pytest.raises(RunError, match="cannot be mapped"):
        map_shared(address)
    assert threading.active_count() < 100
