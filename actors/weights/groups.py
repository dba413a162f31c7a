"""Process groups for broadcasts, gloo and NCCL, with a deadline for both ends."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, Protocol, TypeVar

import torch

from actors.weights.transport import PushGroup
from openrs_ray.errors import RunError
from openrs_ray.weights.meeting import Proof, SealedStore

T = TypeVar("T")

_QUESTION, _ANSWER = 1, 2  # tags of messages


class BroadcastGroup(Protocol):
    def broadcast(self, buffer: torch.Tensor) -> None:
        """Begin to send (rank 0) or fill (others) a uint8 buffer; buffers travel in order."""

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        """Wait for all broadcasts but the last `but` ones. RunError past the deadline or `until` (monotonic clock)."""

    def close(self) -> None: ...


class GlooGroup:
    """Broadcast over TCP between CPU processes."""

    def __init__(self, group: PushGroup, rank: int, device: torch.device) -> None:
        self.store = SealedStore(group.meeting, rank, group.world_size, group.deadline_s)
        gloo: Any = torch.distributed.ProcessGroupGloo  # its type stubs know neither options nor broadcast
        options = gloo._Options()
        options._timeout = timedelta(seconds=group.deadline_s)
        # Bound to an address: a machine's own host name often does not resolve inside containers.
        options._devices = [gloo.create_device(hostname=group.meeting.own_address())]
        self._group = gloo(self.store, rank, group.world_size, options)
        self._deadline_s = group.deadline_s
        self._begun: deque[list[Any]] = deque()
        try:
            proof = Proof(self.store, rank, group.world_size)
            first = torch.frombuffer(bytearray(proof.first), dtype=torch.uint8)
            self.broadcast(first)
            self.wait()
            proof.settle(bytes(first.tolist()))
        except Exception:
            self.close()
            raise

    def broadcast(self, buffer: torch.Tensor) -> None:
        options = torch.distributed.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        with _said_as_run_error("gloo", self._deadline_s):
            self._begun.append([self._group.broadcast([buffer], options)])

    def ask(self, members: Iterable[int], question: torch.Tensor) -> None:
        """Begin to send members an int64 tensor and to wait for their answers; `wait` counts it as a broadcast."""
        with _said_as_run_error("gloo", self._deadline_s):
            self._begun.append(
                [
                    work
                    for member in members
                    for work in (
                        self._group.send([question], member, _QUESTION),
                        self._group.recv([torch.empty_like(question)], member, _ANSWER),
                    )
                ]
            )

    @contextmanager
    def asked(self, room: torch.Tensor) -> Iterator[torch.Tensor]:
        """Receive rank 0's question into `room`; leaving the block answers it."""
        with _said_as_run_error("gloo", self._deadline_s):
            self._group.recv([room], 0, _QUESTION).wait(timedelta(seconds=self._deadline_s))
            yield room
            self._group.send([room], 0, _ANSWER).wait(timedelta(seconds=self._deadline_s))

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        until = min(until, time.monotonic() + self._deadline_s)
        with _said_as_run_error("gloo", self._deadline_s):
            while len(self._begun) > but:
                for work in self._begun.popleft():
                    work.wait(timedelta(seconds=max(0.001, until - time.monotonic())))

    def close(self) -> None:
        # In a thread: a broadcast that hangs delays the group's end until its own deadline.
        Thread(target=self.__dict__.clear, daemon=True).start()


@contextmanager
def _said_as_run_error(transport: str, deadline_s: float) -> Iterator[None]:
    """A library's RuntimeError as a RunError, which costs one engine and not the sender."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"a weight bucket did not get through by {transport} within {deadline_s:.0f} s: {error}"
        ) from error


class NcclGroup:
    """Broadcast between GPUs, on its own CUDA stream: one that hangs delays no other kernel."""

    def __init__(self, group: PushGroup, rank: int, device: torch.device) -> None:
        from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
        from vllm.distributed.utils import StatelessProcessGroup
        from vllm.utils.nccl import unpinned_nccl_env

        deadline_s, size = group.deadline_s, group.world_size
        ends = time.monotonic() + deadline_s
        store = SealedStore(group.meeting, rank, size, deadline_s)
        peers = StatelessProcessGroup(rank, size, store)
        with unpinned_nccl_env():
            self._communicator = _within(ends, deadline_s, lambda: PyNcclCommunicator(peers, device=device))
        # Without a usable libnccl the communicator switches itself off and every broadcast silently does nothing.
        if not self._communicator.available or self._communicator.disabled:
            raise RunError(
                f"NCCL is disabled on rank {rank} of the weight push (library missing or too old: vLLM needs NCCL 2.29.7 "
                "or newer, point VLLM_NCCL_SO_PATH to it)"
            )
        self._deadline_s = deadline_s
        self._stream = torch.cuda.Stream(device)
        self._begun: deque[tuple[torch.cuda.Event, torch.Tensor]] = (
            deque()
        )  # each with its buffer, which must live as long
        try:
            self._first_broadcast(Proof(store, rank, size), device, ends)
        except Exception:
            self.close()
            raise

    def _first_broadcast(self, proof: Proof, device: torch.device, until: float) -> None:
        """Connect NCCL's channels while joining: their first use could hang past a push's deadline."""

        def begin() -> torch.Tensor:
            with torch.accelerator.device_index(device.index):
                buffer = torch.tensor(list(proof.first), dtype=torch.uint8, device=device)
                self.broadcast(buffer)
                return buffer

        buffer = _within(until, self._deadline_s, begin)
        self.wait(until)
        proof.settle(bytes(buffer.tolist()))

    def broadcast(self, buffer: torch.Tensor) -> None:
        with _said_as_run_error("NCCL", self._deadline_s):
            self._stream.wait_stream(torch.cuda.current_stream())
            self._communicator.broadcast(buffer, src=0, stream=self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)
            self._begun.append((done, buffer))

    def wait(self, until: float = math.inf, but: int = 0) -> None:
        until = min(until, time.monotonic() + self._deadline_s)
        with _said_as_run_error("NCCL", self._deadline_s):
            while len(self._begun) > but:
                if self._begun[0][0].query():
                    self._begun.popleft()
                elif time.monotonic() > until:
                    raise RunError(f"a weight bucket did not get through by NCCL within {self._deadline_s:.0f} s")
                else:
                    time.sleep(0.0005)

    def close(self) -> None:
        self._communicator.destroy()


def _within(until: float, deadline_s: float, make: Callable[[], T]) -> T:
    """Result of `make`; RunError when it is not done by `until`, since NCCL would wait for ever.

    In a thread: making a communicator also changes the thread's current CUDA stream.
    """
    made: Future[T] = Future()

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return made.result(max(0.001, until - time.monotonic()))
    except TimeoutError as error:
        raise RunError(
            f"NCCL did not bring the members of the weight push together within {deadline_s:.0f} s"
        ) from error


def joined(kind: Callable[[PushGroup, int, torch.device], T], group: PushGroup, rank: int, device: torch.device) -> T:
    """An end of a push's connection. RunError when a member is late or a stranger, or the communicator is unusable."""
    try:
        return kind(group, rank, device)
    except (RuntimeError, OSError, torch.distributed.DistError) as error:
        raise RunError(
            f"rank {rank} of {group.world_size} could not join the weight push group at {group.meeting.host}:"
            f"{group.meeting.port} ({group.transport}) within {group.deadline_s:.0f} s: {error}"
        ) from error
