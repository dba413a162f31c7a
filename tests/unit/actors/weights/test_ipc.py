"""CUDA IPC without a GPU: shared files stand in for GPU memory, two ranks and two engines for processes."""

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.weights import ipc
from actors.weights.ipc import Ipc, IpcReceiver, IpcSender
from actors.weights.transport import Outgoing, PushGroup
from openrs_ray.errors import RunError
from openrs_ray.weights.buckets import Bucket, ParameterSpec
from openrs_ray.weights.digest import digest
from openrs_ray.weights.meeting import Meeting

CPU = torch.device("cpu")
BUCKETS = [Bucket((ParameterSpec("a", "float32", (64,)),)), Bucket((ParameterSpec("b", "bfloat16", (8, 3)),))]


class Ends:
    """Both ends in this process, by the interface that `transfer` has."""

    def __init__(self, weights: list[list[torch.Tensor]]) -> None:
        def outgoing(rank: int) -> Outgoing:
            return Outgoing(rank, CPU, 20.0, 256, lambda: iter(zip(BUCKETS, [[w] for w in weights[rank]], strict=True)))

        group = PushGroup("ipc", Meeting("127.0.0.1", 1, ""), 2, 20.0)
        self.buckets, self.engines = BUCKETS, [0, 1]
        self.senders = [Ipc().sender(outgoing(rank)) for rank in range(len(weights))]
        self.receivers = [Ipc().receiver(group, 1, CPU) for _ in self.engines]
        self.received: list[list[torch.Tensor]] = [[], []]

    async def send(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(sender, method)(*arguments) for sender in self.senders]

    async def receive(self, buckets: Sequence[Bucket], parcel: Any = None) -> None:
        for receiver, received in zip(self.receivers, self.received, strict=True):
            received += [receiver.receive(bucket.nbytes, parcel) for bucket in buckets]

    def lose(self, engine: int, reason: str) -> None:
        raise AssertionError(reason)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list["weakref.ref[torch.Tensor]"]:
    """Every mapping that was made, of a file that holds what the sender's buffer does."""
    buffers: list[torch.Tensor] = []
    made: list[weakref.ref[torch.Tensor]] = []

    def export(buffer: torch.Tensor) -> dict[str, list[Any]]:
        buffers.append(buffer)
        return {f"gpu-{len(buffers)}": [len(buffers)]}

    def open_ipc(handles: dict[str, list[Any]], device: torch.device) -> torch.Tensor:
        tensor = buffers[handles["gpu-1"][0] - 1].view(-1)
        made.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(ipc, "export_ipc", export)
    monkeypatch.setattr(ipc, "open_ipc", open_ipc)
    return made


def test_every_engine_gets_every_bucket_and_maps_the_buffer_once(mapped: list[Any]) -> None:
    weights = [torch.randn(64), torch.randn(8, 3).bfloat16()]
    ends = Ends([weights, weights])
    for push in range(2):
        ends.received = [[], []]
        weights[0].add_(push)
        sent = asyncio.run(Ipc().transfer(ends))
        for received in ends.received:
            assert [int(digest(buffer)) for buffer in received] == sent
            got = [
                tensor for bucket, buffer in zip(BUCKETS, received, strict=True) for _, tensor in bucket.unpack(buffer)
            ]
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, weights, strict=True))
    assert len(mapped) == 2, "one for each engine, for all pushes"


def test_ranks_with_different_weights_end_the_push(mapped: list[Any]) -> None:
    weights = [torch.randn(64), torch.randn(8, 3).bfloat16()]
    ends = Ends([weights, [weights[0], weights[1] + 1]])
    with pytest.raises(RunError, match="different weights in bucket 1 of the push"):
        asyncio.run(Ipc().transfer(ends))


def test_a_learner_that_is_gone_has_nothing_mapped_any_more(mapped: list[Any]) -> None:
    weights = [torch.randn(64), torch.randn(8, 3).bfloat16()]
    ends = Ends([weights])
    asyncio.run(Ipc().transfer(ends))
    for receiver in ends.receivers:
        assert isinstance(receiver, IpcReceiver)
        receiver.close()
    assert all(mapping() is None for mapping in mapped)


def test_a_push_that_was_broken_off_starts_again_at_the_first_bucket(mapped: list[Any]) -> None:
    weights = [torch.randn(64), torch.randn(8, 3).bfloat16()]
    (sender,) = Ends([weights]).senders
    assert isinstance(sender, IpcSender)
    for first, index in ((True, 0), (True, 0), (False, 1)):
        staged = sender.stage(first)
        assert staged is not None and staged.index == index
    assert sender.stage(False) is None
