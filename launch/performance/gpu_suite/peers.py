"""Parts ipc and nccl: two processes hand each other GPU memory, and one of them is stopped or killed.

On a CPU a mapped file stands in for CUDA IPC, and gloo for NCCL; all the rest is the same.
"""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from actors.weights.groups import BroadcastGroup, GlooGroup, NcclGroup, joined
from actors.weights.ipc import export_ipc, open_ipc
from actors.weights.transport import PushGroup
from launch.performance.gpu_suite.rows import Row, Size, noted, true
from openrs_ray.cluster.probes import free_port
from openrs_ray.errors import RunError
from openrs_ray.weights.digest import digest
from openrs_ray.weights.meeting import Meeting

_HOST, _ANSWER_S, _TIMES = "127.0.0.1", 60.0, 3
_BYTES = {"full": 256 << 20, "tiny": 64 << 20}
"""More than any socket buffer takes, so that nothing gets through to a peer that does not read."""
_JOIN_DEADLINE_S = {"full": 12.0, "tiny": 3.0}


class Party:
    """Base of what one of the processes does; its methods are called by name."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.device = torch.device("cuda:0" if size == "full" else "cpu")

    def computes(self) -> bool:
        """True if its device still does what it is asked, on its usual stream."""
        return bool((torch.ones(64, 64, device=self.device) @ torch.ones(64, 64, device=self.device) == 64).all())

    def fill(self, buffer: torch.Tensor, seed: int) -> int:
        """New bytes into the same buffer; their digest."""
        generator = torch.Generator(self.device).manual_seed(seed)
        buffer.copy_(torch.randint(256, buffer.shape, generator=generator, device=self.device, dtype=torch.uint8))
        return int(digest(buffer))  # reading it waits for the copy


class Exporter(Party):
    def make(self, file: str) -> dict[str, list[Any]]:
        """A handle of a buffer; `file` is where it lies on a CPU."""
        if self.size == "full":
            self._buffer = torch.empty(_BYTES["full"], dtype=torch.uint8, device=self.device)
            return export_ipc(self._buffer)
        self._buffer = torch.from_file(file, shared=True, size=_BYTES["tiny"], dtype=torch.uint8)
        return {"file": [file]}

    def rewrite(self, seed: int) -> int:
        return self.fill(self._buffer, seed)


class Reader(Party):
    def open(self, handles: dict[str, list[Any]]) -> None:
        if self.size == "full":
            self._buffer = open_ipc(handles, self.device)
        else:
            self._buffer = torch.from_file(handles["file"][0], shared=True, size=_BYTES["tiny"], dtype=torch.uint8)

    def read(self) -> int:
        return int(digest(self._buffer.clone()))  # a copy, as an engine takes it


class Member(Party):
    """Member of a group for broadcasts: rank 0 sends."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self._group: BroadcastGroup | None = None
        if size == "full":  # takes as long as a deadline
            import vllm.distributed.device_communicators.pynccl  # noqa: F401

    def join(self, port: int, rank: int) -> None:
        self.leave()
        kind: type[BroadcastGroup] = NcclGroup if self.size == "full" else GlooGroup
        name = "nccl" if kind is NcclGroup else "gloo"
        group = PushGroup(name, Meeting(_HOST, port, "of this suite"), 2, _JOIN_DEADLINE_S[self.size])
        self._group = joined(kind, group, rank, self.device)
        self._buffer = torch.zeros(_BYTES[self.size], dtype=torch.uint8, device=self.device)

    def send(self, seed: int) -> int:
        value = self.fill(self._buffer, seed)
        try:
            self._pass_on()
        except RunError:
            self.leave()  # as the learner does, and joins another group later
            raise
        return value

    def receive(self) -> int:
        self._pass_on()
        return int(digest(self._buffer))

    def leave(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None

    def _pass_on(self) -> None:
        assert self._group is not None, "join first"
        self._group.broadcast(self._buffer)
        self._group.wait()


class Peer:
    """A process with a party in it; every answer has a deadline."""

    def __init__(self, kind: type[Party], size: Size, environment: dict[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, size, environment or {}), daemon=True)
        self._process.start()
        self.ask("computes")

    def ready(self) -> "Peer":
        """When it has started; several may do so at once."""
        assert self.answer(), "its device computes wrongly"
        return self

    def ask(self, method: str, *arguments: Any) -> None:
        self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """Answer to the last question.

        Raises:
            RunError: the party raised an error, or did not answer in time.
        """
        if not self._pipe.poll(_ANSWER_S):
            raise RunError(f"no answer within {_ANSWER_S:.0f} s")
        value, error = self._pipe.recv()
        if error is not None:
            raise RunError(error)
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        self.ask(method, *arguments)
        return self.answer()

    def stop(self) -> None:
        """Stops the process: it neither answers nor ends."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, kind: type[Party], size: Size, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # before CUDA and NCCL are first used
    party = kind(size)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((getattr(party, method)(*arguments), None))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))


def _started(kind: type[Party], size: Size, ending: ExitStack, hosts: Sequence[str]) -> list[Peer]:
    """All at once, since each takes a while. NCCL refuses two processes of one host on one GPU: each has a host's name."""
    peers = []
    for host in hosts:
        names = {"NCCL_HOSTID": host, "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
        peers.append(Peer(kind, size, names))
        ending.callback(peers[-1].kill)
    return peers


def ipc(size: Size) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
        exporter, later = _started(Exporter, size, ending, ("learner-0", "learner-1"))
        reader, second = _started(Reader, size, ending, ("rollout-0", "rollout-1"))
        handles = exporter.ready().call("make", str(Path(folder) / "first"))
        reader.ready().call("open", handles)
        same = sum(exporter.call("rewrite", seed) == reader.call("read") for seed in range(_TIMES))
        yield true("a rewritten buffer is read as it now is", same == _TIMES, f"{same} of {_TIMES}")

        reader.kill()
        wanted = exporter.call("rewrite", _TIMES)
        second.ready().call("open", handles)
        yield true("reader killed: the next one reads the same buffer", second.call("read") == wanted)

        exporter.kill()
        try:
            found = "has the old bytes" if second.call("read") == wanted else "has other bytes"
        except RunError as error:
            found = f"gets an error: {error}"
        yield noted("exporter killed: its reader", found)
        second.call("open", later.ready().call("make", str(Path(folder) / "second")))
        same_again = later.call("rewrite", 0) == second.call("read")
        yield true("exporter killed: its reader reads from the next one", same_again)
        yield true("exporter killed: its reader can still compute", second.call("computes"))


def nccl(size: Size) -> Iterator[Row]:
    with ExitStack() as ending:
        sender, receiver, *others = _started(Member, size, ending, ("learner", "rollout-0", "rollout-1", "rollout-2"))
        for peer in (sender, receiver, *others):
            peer.ready()
        yield noted("joining", _joined(sender, receiver), "s")
        same = sum(_arrives(sender, receiver, seed) for seed in range(_TIMES))
        yield true("what is sent arrives", same == _TIMES, f"{same} of {_TIMES}")
        for what, harm, following in zip(("stopped", "killed"), (Peer.stop, Peer.kill), others, strict=True):
            harm(receiver)
            yield _given_up(f"receiver {what}: the sender gives up", sender, size, "send", 0)
            yield true(f"receiver {what}: the sender can still compute", sender.call("computes"))
            receiver = following
            yield noted(f"receiver {what}: joining a second group", _joined(sender, receiver), "s")
            yield true(f"receiver {what}: what is sent in the second group arrives", _arrives(sender, receiver, 1))
        sender.call("leave")
        yield _given_up("nobody joins: the sender gives up", sender, size, "join", free_port(), 0)
        _joined(sender, receiver)
        yield true("nobody joins: another group works", _arrives(sender, receiver, 2))


def _joined(sender: Peer, receiver: Peer) -> float:
    """Seconds until both have joined a new group."""
    began, port = time.monotonic(), free_port()
    sender.ask("join", port, 0)
    receiver.ask("join", port, 1)
    receiver.answer()
    sender.answer()
    return time.monotonic() - began


def _arrives(sender: Peer, receiver: Peer, seed: int) -> bool:
    receiver.ask("receive")
    sender.ask("send", seed)
    return bool(receiver.answer() == sender.answer())


def _given_up(what: str, sender: Peer, size: Size, method: str, *arguments: Any) -> Row:
    """Right if it ends with our own error soon after the deadline."""
    began, deadline_s = time.monotonic(), _JOIN_DEADLINE_S[size]
    try:
        sender.call(method, *arguments)
        end = "it did not"
    except RunError as error:
        end = str(error)
    seconds = time.monotonic() - began
    holds = end.startswith("RunError") and seconds < 1.5 * deadline_s + 5
    shown = f"after {seconds:.1f} s" if holds else f"after {seconds:.1f} s: {end}"
    return Row(what, shown, f"deadline {deadline_s:.0f} s", "ok" if holds else "failed")
