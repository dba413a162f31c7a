"""The bare transfer inside the processes of a real push: same buckets and group, without packing, digests or loading.

Over `ipc` and shared memory the receiver copies what is staged. Both sides start their clocks after exchanging a few bytes.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch

from actors.learner.rank import LearnerRank
from actors.rollout.worker import RolloutWorker
from actors.weights.broadcast import BroadcastSender
from actors.weights.groups import BroadcastGroup
from actors.weights.shared import SharedGroup, SharedReceiver
from actors.weights.staging import pieces

_FIRST_BYTES = 16


class MemoryMark:
    """GPU memory that torch has taken beyond the mark; 0 on a CPU."""

    _marked = 0

    def mark_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._marked = torch.cuda.memory_allocated()

    def extra_gib(self) -> float:
        return (torch.cuda.max_memory_allocated() - self._marked) / 2**30


class RawSender(MemoryMark, LearnerRank):
    def raw_send(self, sizes: Sequence[int]) -> None:
        assert isinstance(self._sender, BroadcastSender)
        group = self._sender.groups[0]
        shared = isinstance(group, SharedGroup)
        buffer = self._sender.slots if shared else self._sender.weights.buffer
        for size in (_FIRST_BYTES, *sizes):
            for part in pieces(size) if shared else [slice(size)]:
                group.broadcast(buffer[: part.stop - (part.start or 0)])
                group.wait()


class RawWorker(RolloutWorker):
    worker_extension = "launch.performance.raw_receiver.RawReceiver"

    async def in_engine(self, method: str, *arguments: Any) -> Any:
        """The first vLLM worker's answer."""
        return (await self._alive(self._engine.collective_rpc(method, args=arguments)))[0]


def receive(group: BroadcastGroup, sizes: Sequence[int], device: torch.device) -> float:
    """Seconds until buckets of these sizes have come."""
    group.broadcast(torch.empty(_FIRST_BYTES, dtype=torch.uint8, device=device))
    group.wait()
    started = time.perf_counter()
    for size in sizes:
        group.broadcast(torch.empty(size, dtype=torch.uint8, device=device))
        group.wait()
    return time.perf_counter() - started


def copy_pieces(end: SharedReceiver, sizes: Sequence[int]) -> float:
    """Seconds until buckets of these sizes have been copied out of the learner's memory."""
    end.receive(_FIRST_BYTES, None)
    started = time.perf_counter()
    for size in sizes:
        end.receive(size, None)
    return time.perf_counter() - started


def copy(mapped: torch.Tensor, sizes: Sequence[int]) -> float:
    """Seconds to copy so many bytes of another process's buffer, bucket by bucket."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for size in sizes:
        mapped[:size].clone()
    torch.cuda.synchronize()
    return time.perf_counter() - started
