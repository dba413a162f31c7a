"""The transports refuse to wait for ever, and refuse a communicator that would silently do nothing."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.weights import groups as module
from actors.weights.broadcast import BroadcastReceiver, BroadcastSender, Sent
from actors.weights.groups import BroadcastGroup, GlooGroup, NcclGroup, joined
from actors.weights.transport import Outgoing, PushGroup
from openrs_ray.errors import RunError
from openrs_ray.weights.buckets import Bucket, ParameterSpec
from openrs_ray.weights.meeting import Meeting, SealedStore, seal

CPU = torch.device("cpu")


def join_all(size: int, deadline_s: float) -> list[GlooGroup]:
    group = PushGroup("gloo", Meeting.at("127.0.0.1"), size, deadline_s)
    groups: dict[int, Any] = {}

    def join(rank: int) -> None:
        groups[rank] = joined(GlooGroup, group, rank, CPU)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [groups[rank] for rank in range(size)]


def test_gloo_brings_the_bytes_of_rank_0_to_all() -> None:
    groups = join_all(3, 20)
    sent = torch.randint(0, 256, (100_003,), dtype=torch.uint8)
    buffers = [sent.clone(), torch.zeros_like(sent), torch.zeros_like(sent)]
    for group, buffer in zip(groups, buffers, strict=True):
        group.broadcast(buffer)
    for group in groups:
        group.wait()
    assert torch.equal(buffers[1], sent) and torch.equal(buffers[2], sent)


def test_a_receiver_whose_sender_is_silent_gives_up_at_its_deadline() -> None:
    _, receiver = join_all(2, 2)
    began = time.monotonic()
    with pytest.raises(RunError, match="did not get through"):
        receiver.broadcast(torch.zeros(1000, dtype=torch.uint8))
        receiver.wait()
    assert time.monotonic() - began < 10


def test_a_sender_whose_receiver_is_silent_gives_up_at_its_deadline() -> None:
    sender, _ = join_all(2, 2)
    began = time.monotonic()
    with pytest.raises(RunError, match="did not get through"):
        sender.broadcast(torch.zeros(256 << 20, dtype=torch.uint8))  # more than any socket buffer takes
        sender.wait()
    assert time.monotonic() - began < 10


def test_an_engine_that_stalls_in_the_first_bucket_costs_the_others_nothing() -> None:
    """The first in turn takes nothing at all; the other must get every byte before its own deadline, with time to spare."""
    deadline_s, size = 6.0, 64 << 20  # more than any socket buffer takes
    stalled, served = join_all(2, deadline_s), join_all(2, deadline_s)
    buckets = [torch.randint(0, 256, (bytes_,), dtype=torch.uint8) for bytes_ in (size, *[4 << 20] * 4)]
    specs = [Bucket((ParameterSpec("all", "uint8", tuple(bucket.shape)),)) for bucket in buckets]
    weights = Outgoing(
        0, CPU, deadline_s, size, lambda: iter(zip(specs, [[bucket] for bucket in buckets], strict=True))
    )
    sender = BroadcastSender(weights, GlooGroup)
    sender.groups = {0: stalled[0], 1: served[0]}
    end, received = BroadcastReceiver(served[1], CPU), []

    def receive() -> None:
        end.expect([bucket.nbytes for bucket in specs])
        received.extend(end.receive(bucket.nbytes, None) for bucket in specs)

    receiver = threading.Thread(target=receive)
    receiver.start()
    began = time.monotonic()
    sent = sender.send([0, 1])
    assert time.monotonic() - began < deadline_s
    receiver.join(deadline_s)
    assert list(sent.failed) == [0] and len(sent.digests) == len(buckets)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(received, buckets, strict=True))


def test_a_sender_need_not_wait_to_its_deadline() -> None:
    sender, _ = join_all(2, 8)
    began = time.monotonic()
    sender.broadcast(torch.zeros(256 << 20, dtype=torch.uint8))
    with pytest.raises(RunError, match="did not get through"):
        sender.wait(until=began + 1)
    sender.close()
    del sender
    assert time.monotonic() - began < 4


def test_joining_a_group_that_nobody_else_joins_ends_with_a_sentence() -> None:
    with pytest.raises(RunError, match="rank 1 of 2 could not join the weight push group"):
        joined(GlooGroup, PushGroup("gloo", Meeting.at("127.0.0.1"), 2, 2), 1, CPU)


@pytest.mark.parametrize("state", [{"available": False, "disabled": True}, {"available": True, "disabled": True}])
def test_a_disabled_nccl_communicator_is_an_error(monkeypatch: pytest.MonkeyPatch, state: dict[str, bool]) -> None:
    from vllm.distributed.device_communicators import pynccl

    monkeypatch.setattr(pynccl, "PyNcclCommunicator", lambda group, device: SimpleNamespace(**state))
    monkeypatch.setattr(module, "SealedStore", HeldStore)
    with pytest.raises(RunError, match="NCCL is disabled on rank 3"):
        NcclGroup(PushGroup("nccl", Meeting("127.0.0.1", 1, ""), 4, 1.0), 3, CPU)


def test_an_nccl_communicator_that_never_comes_about_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.device_communicators import pynccl

    monkeypatch.setattr(pynccl, "PyNcclCommunicator", lambda group, device: threading.Event().wait())
    monkeypatch.setattr(module, "SealedStore", HeldStore)
    with pytest.raises(RunError, match=r"rank 1 of 2 could not join|did not bring the members .* together within 1 s"):
        joined(NcclGroup, PushGroup("nccl", Meeting("127.0.0.1", 1, ""), 2, 1.0), 1, CPU)


class HeldStore(SealedStore):
    """A store in memory: rank 0 has asked about the bytes 0 to 15."""

    def __init__(self, meeting: Meeting, rank: int, *_: object) -> None:
        torch.distributed.Store.__init__(self)
        self.meeting, self._store = meeting, torch.distributed.HashStore()  # type: ignore[assignment]
        if rank:
            self.set("question", seal(meeting.token, "question", bytes(range(16))))


class StandIn:
    """A communicator without NCCL: `act` is what its n-th broadcast does with the buffer, counting from 1."""

    available, disabled = True, False

    def __init__(self, act: Callable[[int, torch.Tensor], object]) -> None:
        self.act = act
        self.sizes: list[int] = []
        self.destroyed = False

    def broadcast(self, buffer: torch.Tensor, src: int, stream: object) -> None:
        self.sizes.append(buffer.numel())
        self.act(len(self.sizes), buffer)

    def destroy(self) -> None:
        self.destroyed = True


def bring(number: int, buffer: torch.Tensor) -> None:
    """What rank 0 sends first."""
    torch.arange(buffer.numel(), out=buffer)


class Event:
    """A CUDA event that is over at once, or breaks with its stream."""

    def record(self, stream: Any) -> None:
        self.stream = stream

    def query(self) -> bool:
        if self.stream.broken:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return True


def stream_stand_in(device: torch.device) -> SimpleNamespace:
    return SimpleNamespace(wait_stream=lambda stream: None, broken=False)


@pytest.fixture
def nccl_group(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NcclGroup]:
    """Makes an NCCL group of a stand-in communicator."""
    from vllm.distributed.device_communicators import pynccl

    stores: list[HeldStore] = []

    def open_store(*arguments: Any) -> HeldStore:
        stores.append(HeldStore(*arguments))
        return stores[-1]

    monkeypatch.setattr(module, "SealedStore", open_store)
    monkeypatch.setattr(torch.cuda, "Stream", stream_stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", Event)

    def make(communicator: StandIn, rank: int, deadline_s: float = 20.0) -> NcclGroup:
        monkeypatch.setattr(pynccl, "PyNcclCommunicator", lambda group, device: communicator)
        act = communicator.act

        def answered(number: int, buffer: torch.Tensor) -> None:
            if rank == 0 and number == 1:
                stores[-1].set("answer/1", seal("", "answer 1", bytes(buffer.tolist())))
            act(number, buffer)

        communicator.act = answered
        group = joined(NcclGroup, PushGroup("nccl", Meeting("127.0.0.1", 1, ""), 2, deadline_s), rank, CPU)
        assert isinstance(group, NcclGroup)
        return group

    return make


@pytest.mark.parametrize("rank", [0, 1])
def test_channels_are_connected_while_members_join(nccl_group: Callable[..., NcclGroup], rank: int) -> None:
    communicator = StandIn(bring)
    nccl_group(communicator, rank)
    assert communicator.sizes == [16] and not communicator.destroyed


def test_a_first_broadcast_that_never_returns_is_given_up(nccl_group: Callable[..., NcclGroup]) -> None:
    communicator = StandIn(lambda number, buffer: threading.Event().wait())
    began = time.monotonic()
    with pytest.raises(RunError, match=r"did not bring the members .* together within"):
        nccl_group(communicator, 1, 1.0)
    assert time.monotonic() - began < 10 and communicator.destroyed


def test_a_group_whose_first_bytes_find_no_memory_is_closed(
    nccl_group: Callable[..., NcclGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    communicator = StandIn(bring)
    monkeypatch.setattr(torch, "tensor", full)
    with pytest.raises(RunError, match="CUDA out of memory"):
        nccl_group(communicator, 1)
    assert communicator.destroyed


def test_the_whole_deadline_is_named_when_the_rendezvous_has_taken_most_of_it(
    nccl_group: Callable[..., NcclGroup], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(module, "SealedStore", lambda *arguments: time.sleep(0.7) or HeldStore(*arguments))
    with pytest.raises(RunError, match="together within 1 s"):
        nccl_group(StandIn(lambda number, buffer: threading.Event().wait()), 1, 1.0)


def test_a_first_broadcast_that_brings_nothing_is_an_error(nccl_group: Callable[..., NcclGroup]) -> None:
    communicator = StandIn(lambda number, buffer: None)
    with pytest.raises(RunError, match="brought other bytes to rank 1"):
        nccl_group(communicator, 1)
    assert communicator.destroyed


def send_two_buckets(groups: dict[int, BroadcastGroup]) -> Sent:
    bucket = torch.randint(0, 256, (1024,), dtype=torch.uint8)
    spec = Bucket((ParameterSpec("all", "uint8", (1024,)),))
    sender = BroadcastSender(Outgoing(0, CPU, 20.0, 1024, lambda: iter([(spec, [bucket])] * 2)), NcclGroup)
    sender.groups = dict(groups)
    sent = sender.send(list(groups))
    assert len(sent.digests) == 2
    return sent


def test_what_nccl_says_of_an_engine_costs_that_engine_alone(nccl_group: Callable[..., NcclGroup]) -> None:
    def fail(number: int, buffer: torch.Tensor) -> None:
        if number > 2:
            raise RuntimeError("NCCL error: remote process exited or there was a network error")

    bad, good = StandIn(fail), StandIn(lambda number, buffer: None)
    sent = send_two_buckets({0: nccl_group(bad, 0), 1: nccl_group(good, 0)})
    assert list(sent.failed) == [0] and "remote process exited" in sent.failed[0]
    assert bad.destroyed and good.sizes == [16, 1024, 1024] and not good.destroyed


def test_a_broken_event_costs_its_engine_alone(nccl_group: Callable[..., NcclGroup]) -> None:
    broken, good = (nccl_group(StandIn(lambda number, buffer: None), 0) for _ in range(2))
    broken._stream.broken = True
    sent = send_two_buckets({0: broken, 1: good})
    assert list(sent.failed) == [0] and "unspecified launch failure" in sent.failed[0]
