"""Interface of a transport: a sender in every learner rank, a receiver in every engine worker, `transfer` in the driver.

docs/extending.md adds one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from openrs_ray.cluster.layout import transport_class
from openrs_ray.weights.buckets import Bucket
from openrs_ray.weights.meeting import Meeting


@dataclass(frozen=True, slots=True)
class PushGroup:
    """Learner rank 0 and the workers of one engine."""

    transport: str
    meeting: Meeting
    world_size: int
    deadline_s: float
    """For joining, and for every bucket."""


@dataclass(frozen=True)
class Outgoing:
    """One learner rank's weights."""

    rank: int
    device: torch.device
    deadline_s: float
    largest: int
    """Bytes of the largest bucket."""
    gather: Callable[[], Iterator[tuple[Bucket, list[torch.Tensor]]]]
    """All buckets; tensors are valid until the next. Call it on all ranks: under ZeRO-3 they gather together."""

    @cached_property
    def buffer(self) -> torch.Tensor:
        """Staging buffer, uint8 [largest]."""
        return torch.empty(self.largest, dtype=torch.uint8, device=self.device)


class Sender:
    """A learner rank's end. Every method is called on all ranks at once."""

    def __init__(self, weights: Outgoing) -> None:
        self.weights = weights

    def join(self, engine: int, group: PushGroup) -> None:
        """Connect to an engine, in place of an earlier one of this number."""


class Receiver(ABC):
    """An engine worker's end, made when the engine joins a learner."""

    def expect(self, sizes: Sequence[int]) -> None:  # noqa: B027 (most receivers do not need it)
        """Announce the sizes of the next buckets in bytes, for a receiver that receives ahead."""

    @abstractmethod
    def receive(self, nbytes: int, parcel: Any) -> torch.Tensor:
        """The next bucket, uint8 [nbytes], in its own memory. RunError past the deadline."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the learner."""


class Ends(Protocol):
    """Both ends of one push, for `transfer`. Every call has the push's deadline."""

    @property
    def buckets(self) -> Sequence[Bucket]: ...

    @property
    def engines(self) -> list[int]:
        """Numbers of those not lost."""

    async def send(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank's sender; results in rank order. RunError when a rank fails."""

    async def receive(self, buckets: Sequence[Bucket], parcel: Any = None) -> None:
        """Receive buckets in every engine; one that fails is lost."""

    def lose(self, engine: int, reason: str) -> None:
        """Give an engine up; another replaces it."""


class Transport(ABC):
    """Makes both ends and moves the buckets between them."""

    @abstractmethod
    def sender(self, weights: Outgoing) -> Sender: ...

    @abstractmethod
    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        """`rank` is 1 + the worker's number in its engine. RunError when it cannot join."""

    @abstractmethod
    async def transfer(self, ends: Ends) -> list[int]:
        """Bring every bucket to every engine; returns their digests as sent."""

    def learner_variables(self) -> dict[str, str]:
        """Environment of the learner's processes."""
        return {}

    def engine_variables(self) -> dict[str, str]:
        return {}


def find(name: str) -> Transport:
    """Transport by its name in TRANSPORTS, or `module:class`."""
    transport: Transport = transport_class(name)()
    return transport
