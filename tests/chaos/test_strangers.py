"""A process without the run's token reaches a meeting point before the engine does: it must get nothing, and be named."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psutil
import pytest
import torch
from torch.distributed import HashStore, Store, TCPStore

from actors.weights.broadcast import BroadcastReceiver, BroadcastSender, HostSender
from actors.weights.groups import GlooGroup, joined
from actors.weights.shared import SharedReceiver
from actors.weights.transport import Outgoing, PushGroup
from openrs_ray.errors import RunError
from openrs_ray.weights.buckets import Bucket, ParameterSpec
from openrs_ray.weights.meeting import LOOPBACK, Meeting, Proof, SealedStore, prove_ranks

CPU = torch.device("cpu")
DEADLINE_S = 4.0
WEIGHTS = torch.arange(64, dtype=torch.uint8)


class Unsealing(Store):
    """A stranger that knows how values are sealed: it cuts seals off, and puts others in their place."""

    def __init__(self, store: TCPStore) -> None:
        super().__init__()
        self.store = store

    def set(self, key: str, value: Any) -> None:
        self.store.set(key, bytes(32) + value)

    def get(self, key: str) -> bytes:
        return self.store.get(key)[32:]

    def wait(self, keys: list[str], *timeout: timedelta) -> None:
        self.store.wait(keys, *timeout)


def gloo(store: Store, rank: int) -> Any:
    kind: Any = torch.distributed.ProcessGroupGloo
    options = kind._Options()
    options._timeout = timedelta(seconds=DEADLINE_S)
    options._devices = [kind.create_device(hostname=LOOPBACK)]
    return kind(store, rank, 2, options)


def receive(group: Any) -> torch.Tensor:
    buffer = torch.zeros_like(WEIGHTS)
    options = torch.distributed.BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    group.broadcast([buffer], options).wait(timedelta(seconds=DEADLINE_S))
    return buffer


def steal(meeting: Meeting, disguise: Callable[[TCPStore], Store], got: list[object]) -> None:
    """Takes the engine's place: rank 1 of 2."""
    store = disguise(
        TCPStore(
            meeting.host,
            meeting.port,
            2,
            is_master=False,
            timeout=timedelta(seconds=DEADLINE_S),
            wait_for_workers=False,
        )
    )
    try:
        got.append(receive(gloo(store, 1)))
    except Exception as error:  # gloo makes nothing of a sealed address
        got.append(error)


def over_gloo(weights: Outgoing) -> BroadcastSender:
    """To an engine on another machine."""
    return BroadcastSender(weights, GlooGroup)


@pytest.mark.parametrize(
    ("disguise", "make"), [(lambda store: store, over_gloo), (Unsealing, over_gloo), (Unsealing, HostSender)]
)
def test_a_stranger_in_the_engines_place_gets_no_weights_and_is_named(
    disguise: Callable[[TCPStore], Store], make: Callable[[Outgoing], BroadcastSender]
) -> None:
    meeting, got = Meeting.at(LOOPBACK), []  # type: ignore[var-annotated]
    spec = Bucket((ParameterSpec("all", "uint8", tuple(WEIGHTS.shape)),))
    weights = Outgoing(0, CPU, 2 * DEADLINE_S, spec.nbytes, lambda: iter([(spec, [WEIGHTS])]))
    sender = make(weights)
    thief = threading.Thread(target=steal, args=(meeting, disguise, got))
    thief.start()
    began = time.monotonic()
    with pytest.raises(RunError, match=f"an unknown process joined the group at {LOOPBACK}:{meeting.port}"):
        sender.join(0, PushGroup("gloo", meeting, 2, 2 * DEADLINE_S))
        sender.send([0])
    assert time.monotonic() - began < 2 * DEADLINE_S
    thief.join()
    assert isinstance(got[0], Exception), "it received the weights"
    engine_joins_again(sender)


def engine_joins_again(sender: BroadcastSender) -> None:
    """The run goes on: another meeting, another token, and the weights arrive."""
    group = PushGroup("gloo", Meeting.at(LOOPBACK), 2, 2 * DEADLINE_S)
    shared = isinstance(sender, HostSender)

    def engine() -> torch.Tensor:
        end = (
            joined(SharedReceiver, group, 1, CPU)
            if shared
            else BroadcastReceiver(joined(GlooGroup, group, 1, CPU), CPU)
        )
        end.expect([WEIGHTS.nbytes])
        return end.receive(WEIGHTS.nbytes, None)

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(engine)
        sender.join(0, group)
        assert not sender.send([0]).failed
        assert torch.equal(received.result(), WEIGHTS)


def test_a_stranger_at_the_other_end_of_the_connection_cannot_prove_itself() -> None:
    """It never needed the store: it got hold of the connection itself."""
    meeting, addresses = Meeting.at(LOOPBACK), HashStore()
    store = SealedStore(meeting, 0, 2, 1.0)
    proof = Proof(store, 0, 2)
    ends: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda rank=rank: ends.update({rank: gloo(addresses, rank)})) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    member = SealedStore(meeting, 1, 2, 1.0)  # the engine, whose place was taken, knows the token and waits in vain
    began = time.monotonic()
    with pytest.raises(RunError, match=r"unknown process joined .* rank 1 did not prove"):
        proof.settle(proof.first)
    with pytest.raises(RunError, match="other bytes to rank 1"):
        Proof(member, 1, 2).settle(bytes(16))
    assert time.monotonic() - began < DEADLINE_S


def test_an_answer_from_another_token_is_a_strangers() -> None:
    meeting = Meeting.at(LOOPBACK)
    store = SealedStore(meeting, 0, 2, 1.0)
    other = SealedStore(Meeting(meeting.host, meeting.port, "another"), 1, 2, 1.0)
    other.set("answer/1", b"anything")
    with pytest.raises(RunError, match="answer/1 is not sealed"):
        Proof(store, 0, 2).settle(b"")
    assert meeting.token not in repr(meeting)


def test_nothing_listens_beyond_the_address_of_the_meeting() -> None:
    before = listening()
    store = SealedStore(Meeting.at(LOOPBACK), 0, 2, 1.0)
    assert {host for host, _ in listening() - before} == {LOOPBACK}
    store.set("key", b"value")
    assert store.get("key") == b"value"


def listening() -> set[tuple[str, int]]:
    return {
        tuple(connection.laddr)
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.parametrize(("token", "fine"), [("ours", True), ("theirs", False)])
def test_a_rank_without_the_token_is_named(token: str, fine: bool) -> None:
    sent: dict[int, torch.Tensor] = {}
    barrier = threading.Barrier(2)
    raised: list[RunError] = []

    def be(rank: int, own: str) -> None:
        def exchange(received: torch.Tensor, given: torch.Tensor) -> None:
            sent[rank] = given
            barrier.wait(5)
            received.copy_(torch.cat([sent[other].chunk(2)[rank] for other in range(2)]))

        try:
            prove_ranks(own, rank, 2, exchange)
        except RunError as error:
            raised.append(error)

    threads = [threading.Thread(target=be, args=arguments) for arguments in ((0, "ours"), (1, token))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised if fine else "in place of rank 1" in " ".join(map(str, raised))
