"""Rendezvous and authentication of process groups.

torch's TCPStore accepts any process that reaches its port. Here it listens on one address, its values are sealed with a random
token that travels through Ray, and members prove that they hold the token over the group's own connections.
"""

import hmac
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

from openrs_ray.errors import RunError

_SEAL_BYTES = 32
_NONCE_BYTES = 16
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Meeting:
    """A group's store and token. Example: Meeting("10.0.0.4", 40123, "5f3a...")"""

    host: str
    port: int
    token: str = field(repr=False)

    @classmethod
    def at(cls, host: str) -> "Meeting":
        """On a free port of this machine, with a new token."""
        with socket.socket() as free:
            free.bind((host, 0))
            return cls(host, free.getsockname()[1], new_token())

    @property
    def within_machine(self) -> bool:
        """True if both ends are on one machine."""
        return self.host == LOOPBACK

    def own_address(self) -> str:
        """This machine's address as seen from the meeting."""
        with socket.socket(_family(self.host, self.port), socket.SOCK_DGRAM) as probe:
            probe.connect((self.host, self.port))  # UDP: nothing is sent
            return str(probe.getsockname()[0])


def new_token() -> str:
    """64 hexadecimal digits."""
    return secrets.token_hex(32)


def seal(token: str, what: str, value: bytes) -> bytes:
    """SHA-256 HMAC [32 bytes] of a value and its meaning (RFC 2104)."""
    return hmac.digest(token.encode(), what.encode() + b"\0" + value, "sha256")


class SealedStore(torch.distributed.Store):
    """A TCPStore with sealed values. Keep it as long as its group lives: rank 0's is the server."""

    def __init__(self, meeting: Meeting, rank: int, world_size: int, deadline_s: float) -> None:
        super().__init__()
        self.meeting = meeting
        self._store = torch.distributed.TCPStore(
            meeting.host,
            meeting.port,
            world_size,
            is_master=rank == 0,
            timeout=timedelta(seconds=deadline_s),
            wait_for_workers=False,
            # torch's own socket would listen on every address of the machine.
            master_listen_fd=_listening(meeting.host, meeting.port) if rank == 0 else None,
        )

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._store.set(key, seal(self.meeting.token, key, content) + content)  # type: ignore[arg-type]

    def get(self, key: str) -> bytes:
        """Wait for a key until the deadline. RunError when its seal is wrong."""
        sealed = self._store.get(key)
        content = sealed[_SEAL_BYTES:]
        if not hmac.compare_digest(sealed[:_SEAL_BYTES], seal(self.meeting.token, key, content)):
            raise stranger(self.meeting, f"{key} is not sealed with the run's token")
        return content

    def wait(self, keys: list[str], *timeout: timedelta) -> None:
        self._store.wait(keys, *timeout)

    def delete_key(self, key: str) -> bool:
        return self._store.delete_key(key)


def _listening(host: str, port: int) -> int:
    """Descriptor of a socket, which the store closes."""
    return socket.create_server((host, port), family=_family(host, port), backlog=128).detach()


def _family(host: str, port: int) -> socket.AddressFamily:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


def stranger(meeting: Meeting, evidence: str) -> RunError:
    return RunError(f"an unknown process joined the group at {meeting.host}:{meeting.port}: {evidence}")


class Proof:
    """Proves that all members hold the token, over the connections that they will use.

    Rank 0 broadcasts a random number; receivers answer through the store with its seal. A stranger has the number but not the
    token, and the member that it displaced has the token but not the number.
    """

    def __init__(self, store: SealedStore, rank: int, world_size: int) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._token = store.meeting.token
        # Rank 0 broadcasts it; elsewhere this is room for it.
        self.first = secrets.token_bytes(_NONCE_BYTES) if rank == 0 else bytes(_NONCE_BYTES)
        if rank == 0:
            store.set("question", seal(self._token, "question", self.first))

    def settle(self, received: bytes) -> None:
        """RunError when a member lacks the token; `received` is `first` as broadcast."""
        if self._rank == 0:
            for member in range(1, self._world_size):
                self._hear(member)
        elif seal(self._token, "question", received) != self._store.get("question"):
            raise RunError(f"the first broadcast brought other bytes to rank {self._rank} than rank 0 sent")
        else:
            self._store.set(f"answer/{self._rank}", seal(self._token, f"answer {self._rank}", received))

    def _hear(self, member: int) -> None:
        try:
            answer = self._store.get(f"answer/{member}")
        except torch.distributed.DistStoreError as error:
            raise stranger(self._store.meeting, f"rank {member} did not prove that it holds the run's token") from error
        if answer != seal(self._token, f"answer {member}", self.first):
            raise stranger(self._store.meeting, f"rank {member} proved it with another question's answer")


def prove_ranks(token: str, rank: int, world_size: int, exchange: Callable[[Any, Any], object]) -> None:
    """RunError when a learner rank lacks the token; `exchange` is an all-to-all of uint8 [ranks x 32] (in, out)."""

    def seals(pairs: list[tuple[int, int]]) -> torch.Tensor:
        content = b"".join(seal(token, f"rank {sender} to {receiver}", b"") for sender, receiver in pairs)
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    expected = seals([(other, rank) for other in range(world_size)])
    received = torch.zeros_like(expected)
    exchange(received, seals([(rank, other) for other in range(world_size)]))
    for other, (theirs, right) in enumerate(zip(received.chunk(world_size), expected.chunk(world_size), strict=True)):
        if not torch.equal(theirs, right):
            raise RunError(f"an unknown process joined the learner's ranks in place of rank {other}")
