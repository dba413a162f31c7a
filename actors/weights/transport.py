"""What carries the bytes of a push: one small interface, three ways.

`gloo` between processes on CPUs, `nccl` between GPUs, `ipc` between two processes on the same GPU. Every rollout engine has a
group of its own: the learner's first rank, which is rank 0 and the only sender, and the engine's workers. So an engine that
dies takes nobody else's group with it. Sender and receivers use the same classes, so that neither side can be without a
deadline.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, Protocol, TypeVar

import torch

from actors.cluster.meeting import Meeting, Proof, SealedStore
from openrs_ray.errors import RunError

T = TypeVar("T")


class BroadcastGroup(Protocol):
    """Broadcast from rank 0 to all others."""

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Begin to send (rank 0) or fill (others) a uint8 buffer."""

    def wait(self, until: float = math.inf) -> None:
        """Return when the broadcasts that were begun are done.

        Raises:
            RunError: the deadline passed first, or the moment `until` of the monotonic clock.
        """

    def close(self) -> None: ...


class GlooGroup:
    """Broadcast over TCP between CPU processes."""

    def __init__(self, meeting: Meeting, rank: int, world_size: int, address: str, deadline_s: float) -> None:
        timeout = timedelta(seconds=deadline_s)
        store = SealedStore(meeting, rank, world_size, deadline_s)
        gloo: Any = torch.distributed.ProcessGroupGloo  # its type stubs know neither options nor broadcast
        options = gloo._Options()
        options._timeout = timeout
        # Bound to the address Ray knows: a machine's own host name often does not resolve inside containers.
        options._devices = [gloo.create_device(hostname=address)]
        self._group = gloo(store, rank, world_size, options)
        self._store = store
        self._deadline_s = deadline_s
        self._begun: list[Any] = []
        try:
            self._first_broadcast(Proof(store, rank, world_size))
        except Exception:
            self.close()
            raise

    def _first_broadcast(self, proof: Proof) -> None:
        first = torch.frombuffer(bytearray(proof.first), dtype=torch.uint8)
        self.broadcast(first)
        self.wait()
        proof.settle(bytes(first.tolist()))

    def broadcast(self, buffer: torch.Tensor) -> None:
        options = torch.distributed.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        with _said_as_run_error("gloo", self._deadline_s):
            self._begun.append(self._group.broadcast([buffer], options))

    def wait(self, until: float = math.inf) -> None:
        begun, self._begun = self._begun, []
        until = min(until, time.monotonic() + self._deadline_s)
        with _said_as_run_error("gloo", self._deadline_s):
            for work in begun:
                work.wait(timedelta(seconds=max(0.001, until - time.monotonic())))

    def close(self) -> None:
        # A broadcast that hangs holds up the group's end until its own deadline: nobody need wait for that.
        Thread(target=self.__dict__.clear, daemon=True).start()


@contextmanager
def _said_as_run_error(transport: str, deadline_s: float) -> Iterator[None]:
    """Raises a library's RuntimeError as a RunError, which costs the engine it is about; a bare one would end the sender."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"a weight bucket did not get through by {transport} within {deadline_s:.0f} s: {error}"
        ) from error


class NcclGroup:
    """Broadcast between GPUs, on a CUDA stream of its own: one that hangs holds up no kernel of anybody else."""

    def __init__(self, meeting: Meeting, rank: int, world_size: int, device: torch.device, deadline_s: float) -> None:
        from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
        from vllm.distributed.utils import StatelessProcessGroup
        from vllm.utils.nccl import unpinned_nccl_env

        ends = time.monotonic() + deadline_s
        store = SealedStore(meeting, rank, world_size, deadline_s)
        group = StatelessProcessGroup(rank, world_size, store)
        with unpinned_nccl_env():
            self._communicator = _within(ends, deadline_s, lambda: PyNcclCommunicator(group, device=device))
        # Without a usable libnccl the communicator switches itself off and every broadcast silently does nothing.
        if not self._communicator.available or self._communicator.disabled:
            raise RunError(
                f"NCCL is disabled on rank {rank} of the weight push (library missing or too old: vLLM needs NCCL 2.29.7 "
                "or newer, point VLLM_NCCL_SO_PATH to it)"
            )
        self._deadline_s = deadline_s
        self._stream, self._done = torch.cuda.Stream(device), torch.cuda.Event()
        try:
            self._first_broadcast(Proof(store, rank, world_size), device, ends)
        except Exception:
            self.close()
            raise

    def _first_broadcast(self, proof: Proof, device: torch.device, until: float) -> None:
        """Broadcast on joining: NCCL may connect its channels in its first call, where no deadline of a push would end it."""

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
            self._done.record(self._stream)

    def wait(self, until: float = math.inf) -> None:
        until = min(until, time.monotonic() + self._deadline_s)
        with _said_as_run_error("NCCL", self._deadline_s):
            while not self._done.query():
                if time.monotonic() > until:
                    raise RunError(f"a weight bucket did not get through by NCCL within {self._deadline_s:.0f} s")
                time.sleep(0.0005)

    def close(self) -> None:
        self._communicator.destroy()


def _within(until: float, deadline_s: float, make: Callable[[], T]) -> T:
    """Result of `make`, which has until the given time. RunError when it takes longer: NCCL itself waits for ever.

    In a thread of its own, also because making a communicator leaves another CUDA stream behind as the thread's current one.
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


def join_group(
    transport: str,
    meeting: Meeting,
    rank: int,
    world_size: int,
    address: str,
    device: torch.device,
    deadline_s: float,
) -> BroadcastGroup:
    """Join an engine's push group; blocks until all members have come.

    Args:
        transport: "gloo" or "nccl".
        meeting: where rank 0 listens, and the token by which the members know each other.
        rank: 0 for the sender, 1 + worker index for receivers.
        address: this process's own address.
        deadline_s: how long joining and later each broadcast may take.

    Raises:
        RunError: a member did not come in time, a stranger came, or the communicator is unusable.
    """
    try:
        if transport == "gloo":
            return GlooGroup(meeting, rank, world_size, address, deadline_s)
        return NcclGroup(meeting, rank, world_size, device, deadline_s)
    except (RuntimeError, OSError, torch.distributed.DistError) as error:
        raise RunError(
            f"rank {rank} of {world_size} could not join the weight push group at {meeting.host}:{meeting.port} ({transport}) "
            f"within {deadline_s:.0f} s: {error}"
        ) from error


def export_ipc(buffer: torch.Tensor) -> dict[str, list[Any]]:
    """A handle by which another process on the same GPU can read this buffer, keyed by the GPU's UUID."""
    from torch.multiprocessing.reductions import reduce_tensor

    _, arguments = reduce_tensor(buffer)
    return {str(torch.cuda.get_device_properties(buffer.device).uuid): list(arguments)}


def open_ipc(handles: dict[str, list[Any]], device: torch.device) -> torch.Tensor:
    """Map the buffer that a process on the same GPU exported.

    Raises:
        RunError: no handle is for this process's GPU.
    """
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    index = device.index or 0
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    if uuid not in handles:
        raise RunError(f"no learner rank shares GPU {uuid} with this rollout worker; ranks are on {sorted(handles)}")
    arguments = list(handles[uuid])
    arguments[6] = index  # the exporter's device index means nothing in this process
    tensor: torch.Tensor = rebuild_cuda_tensor(*arguments)
    return tensor
