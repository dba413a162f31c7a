"""The interface of a transport: one way for weights to get from the learner to the engines.

A transport is one file: a sender in every learner rank, a receiver in every worker of an engine, and between them `transfer`,
which runs in the driver. docs/extending.md adds one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, Protocol

import torch

from actors.weights.meeting import Meeting
from openrs_ray.cluster.layout import TRANSPORTS
from openrs_ray.weights.buckets import Bucket


@dataclass(frozen=True, slots=True)
class PushGroup:
    """The learner's first rank and the workers of one engine, which dies without taking another's group with it.

    Example: PushGroup("nccl", Meeting("10.0.0.4", 40123, "5f3a..."), world_size=2, deadline_s=120.0)
    """

    transport: str
    meeting: Meeting
    world_size: int
    """Learner rank 0, which is rank 0 here too and the only sender, and the engine's workers."""
    deadline_s: float
    """For joining, and later for every bucket."""


@dataclass(frozen=True)
class Outgoing:
    """The weights as one learner rank has them."""

    rank: int
    device: torch.device
    deadline_s: float
    """Time that the engines have for a push."""
    largest: int
    """Bytes of the largest bucket."""
    gather: Callable[[], Iterator[tuple[Bucket, list[torch.Tensor]]]]
    """All buckets with their full tensors, valid until the next bucket; called on all ranks."""

    @cached_property
    def buffer(self) -> torch.Tensor:
        """The one staging buffer, uint8 [largest]: it is filled again only when nobody reads it any more."""
        return torch.empty(self.largest, dtype=torch.uint8, device=self.device)


class Sender:
    """A learner rank's end, made when the first engine joins. Every method is called on all ranks at once."""

    def __init__(self, weights: Outgoing) -> None:
        self.weights = weights

    def join(self, engine: int, group: PushGroup) -> None:
        """Connect to an engine, in place of the connection to the one that had its number before."""


class Receiver(ABC):
    """The end in one worker of an engine, made anew when the engine joins a learner."""

    @abstractmethod
    def receive(self, nbytes: int, parcel: Any) -> torch.Tensor:
        """The next bucket, uint8 [nbytes], in memory of its own. RunError when it does not come.

        Args:
            parcel: what `transfer` sent along.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the learner and of its memory."""


class Ends(Protocol):
    """Both ends of one push, as `transfer` asks them. Every call has the push's deadline."""

    @property
    def buckets(self) -> Sequence[Bucket]:
        """Everything that is to be sent, in order."""

    @property
    def engines(self) -> list[int]:
        """Numbers of the engines that are in the push and not lost."""

    async def send(self, method: str, *arguments: Any) -> list[Any]:
        """What this method of every rank's sender returns, in rank order. RunError when a rank fails."""

    async def receive(self, buckets: Sequence[Bucket], parcel: Any = None) -> None:
        """Every worker of the engines receives these; an engine that fails is lost, and replaced after the push."""

    def lose(self, engine: int, reason: str) -> None:
        """Leave an engine behind."""


class Transport(ABC):
    """Makes both ends, and moves the buckets between them."""

    @abstractmethod
    def sender(self, weights: Outgoing) -> Sender: ...

    @abstractmethod
    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        """`rank` in the group: 1 + the worker's number in its engine. RunError when it cannot join."""

    @abstractmethod
    async def transfer(self, ends: Ends) -> list[int]:
        """Bring every bucket to every engine; returns the digests of the buckets as they left."""

    def learner_variables(self) -> dict[str, str]:
        """Environment variables that the learner's processes need."""
        return {}

    def engine_variables(self) -> dict[str, str]:
        return {}


def find(name: str) -> Transport:
    """The transport of a name in TRANSPORTS, or of a `module:class`."""
    transport: Transport = resolve_name(TRANSPORTS.get(name, name))()
    return transport
