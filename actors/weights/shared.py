"""Broadcasts within one machine, through memory that both ends have mapped; gloo says which piece is in place.

Where a member cannot map it (processes of other containers hide their files), its group's pieces travel over gloo.
"""

import logging
import math
import mmap
import os
import secrets
from collections.abc import Iterable

import torch

from actors.weights.groups import GlooGroup
from actors.weights.staging import pieces
from actors.weights.transport import PushGroup, Receiver
from openrs_ray.errors import RunError

_MARK_BYTES = 16
_LOG = logging.getLogger(__name__)


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


class CannotMap(RunError):
    """This process may not map another one's memory."""


def all_mapped(gloo: GlooGroup, members: Iterable[int]) -> bool:
    """True if every member says that it has mapped the memory."""
    return all(gloo.store.get(_answer(member)) == b"yes" for member in members)


def _answer(member: int) -> str:
    return f"mapped-{member}"


def map_shared(address: str) -> torch.Tensor:
    """Another process's memory, uint8 [nbytes]. CannotMap if that is not possible, or if it has another mark."""
    path, nbytes, mark = address.split()
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(file, int(nbytes) + _MARK_BYTES)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise CannotMap(f"the learner's staging memory at {path} cannot be mapped: {error}") from error
    if mapped[int(nbytes) :] != bytes.fromhex(mark):
        # In a container of its own, a process knows others by other numbers: this one's file is somebody else's.
        raise CannotMap(f"the memory at {path} is not the learner's staging memory")
    return torch.frombuffer(mapped, dtype=torch.uint8, count=int(nbytes))


class SharedGroup:
    """The learner's end: a broadcast says where in `memory` a piece lies, and ends when all members have copied it."""

    def __init__(self, memory: SharedMemory, group: PushGroup, rank: int, device: torch.device) -> None:
        self._gloo = GlooGroup(group, rank, device)  # proves its members
        self._gloo.store.set("staging", memory.address)
        self._memory = memory.tensor
        self._members = range(1, group.world_size)
        self.mapped = all_mapped(self._gloo, self._members)

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Begin to hand over a piece, which must lie in the shared memory."""
        if self.mapped:
            at = torch.tensor([buffer.data_ptr() - self._memory.data_ptr()])
            self._gloo.ask(self._members, at)
        else:
            self._gloo.broadcast(buffer)

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        self._gloo.wait(until, but)

    def close(self) -> None:
        self._gloo.close()


class SharedReceiver(Receiver):
    """An engine worker's end: copies pieces out of the learner's memory."""

    def __init__(self, group: PushGroup, rank: int, device: torch.device) -> None:
        self._gloo = GlooGroup(group, rank, device)
        self._memory = self._mapped(rank)
        if not all_mapped(self._gloo, range(1, group.world_size)):
            self._memory = None

    def _mapped(self, rank: int) -> torch.Tensor | None:
        """The learner's memory; None, and a warning, where it cannot be mapped. The others are told."""
        try:
            memory = map_shared(self._gloo.store.get("staging").decode())
        except CannotMap as error:
            _LOG.warning("%s; weights come over gloo instead, which is slower", error)
            memory = None
        self._gloo.store.set(_answer(rank), "no" if memory is None else "yes")
        return memory

    def receive(self, nbytes: int, parcel: None) -> torch.Tensor:
        buffer = torch.empty(nbytes, dtype=torch.uint8)
        for part in pieces(nbytes):
            self.take(buffer[part])
        return buffer

    def take(self, room: torch.Tensor) -> None:
        """Fill `room` (uint8) with the next piece, which must have the same size."""
        if self._memory is None:
            self._gloo.broadcast(room)
            self._gloo.wait()
            return
        with self._gloo.asked(torch.empty(1, dtype=torch.int64)) as at:
            room.copy_(self._memory[int(at) : int(at) + len(room)])

    def close(self) -> None:
        self._gloo.close()
