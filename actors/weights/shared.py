"""Broadcasts within one machine, through memory that both ends have mapped; gloo says which piece is in place."""

import math
import mmap
import os
import secrets

import torch

from actors.weights.groups import GlooGroup
from actors.weights.staging import pieces
from actors.weights.transport import PushGroup, Receiver
from openrs_ray.errors import RunError

_MARK_BYTES = 16


class SharedMemory:
    """Anonymous memory that other processes of the same user can map by its address; it ends with the last of them.

    It has no name in a file system and takes no space in /dev/shm, which has 64 MB in a container. A random mark at its end
    shows that two processes have mapped the same memory.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes, self._mark = nbytes, secrets.token_bytes(_MARK_BYTES)
        self._file = os.memfd_create("openrs-push")
        os.ftruncate(self._file, nbytes + _MARK_BYTES)
        mapped = mmap.mmap(self._file, nbytes + _MARK_BYTES)
        mapped[nbytes:] = self._mark
        self.tensor = torch.frombuffer(mapped, dtype=torch.uint8, count=nbytes)
        """uint8 [nbytes]"""

    @property
    def address(self) -> str:
        """Example: "/proc/4711/fd/9 134217728 5f3a..." """
        return f"/proc/{os.getpid()}/fd/{self._file} {self._nbytes} {self._mark.hex()}"

    def __del__(self) -> None:
        os.close(self._file)


def map_shared(address: str) -> torch.Tensor:
    """Another process's memory, uint8 [nbytes]. RunError if it cannot be mapped or has another mark."""
    path, nbytes, mark = address.split()
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(file, int(nbytes) + _MARK_BYTES)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise RunError(f"the learner's staging memory at {path} cannot be mapped: {error}") from error
    if mapped[int(nbytes) :] != bytes.fromhex(mark):
        raise RunError(f"the memory at {path} is not the learner's staging memory")
    return torch.frombuffer(mapped, dtype=torch.uint8, count=int(nbytes))


class SharedGroup:
    """The learner's end: a broadcast says where in `memory` a piece lies, and ends when all members have copied it."""

    def __init__(self, memory: SharedMemory, group: PushGroup, rank: int, device: torch.device) -> None:
        self._gloo = GlooGroup(group, rank, device)  # proves its members
        self._gloo.store.set("staging", memory.address)
        self._memory = memory.tensor
        self._members = range(1, group.world_size)

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Begin to hand over a piece, which must lie in the shared memory."""
        at = torch.tensor([buffer.data_ptr() - self._memory.data_ptr()])
        self._gloo.ask(self._members, at)

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        self._gloo.wait(until, but)

    def close(self) -> None:
        self._gloo.close()


class SharedReceiver(Receiver):
    """An engine worker's end: copies pieces out of the learner's memory."""

    def __init__(self, group: PushGroup, rank: int, device: torch.device) -> None:
        self._gloo = GlooGroup(group, rank, device)
        self._memory = map_shared(self._gloo.store.get("staging").decode())

    def receive(self, nbytes: int, parcel: None) -> torch.Tensor:
        buffer = torch.empty(nbytes, dtype=torch.uint8)
        for part in pieces(nbytes):
            self.take(buffer[part])
        return buffer

    def take(self, room: torch.Tensor) -> None:
        """Fill `room` (uint8) with the next piece, which must have the same size."""
        with self._gloo.asked(torch.empty(1, dtype=torch.int64)) as at:
            room.copy_(self._memory[int(at) : int(at) + len(room)])

    def close(self) -> None:
        self._gloo.close()
