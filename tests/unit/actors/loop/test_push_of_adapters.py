"""Frozen weights go to each engine once, before its first adapters; every push compares their digests with the engine's."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from actors.loop import push as module
from actors.loop.push import WeightPush
from actors.rollout.supervisor import Replica
from openrs_ray.config.schema import Push
from openrs_ray.errors import RunError
from openrs_ray.weights.buckets import Bucket, ParameterSpec

BASE = Bucket((ParameterSpec("base:q.weight", "float32", (4, 4)),))
ADAPTERS = Bucket((ParameterSpec("lora_A:q.weight", "float32", (1, 4)),))


class Learners:
    life = 1
    sending = ADAPTERS

    async def run(self, act: Callable[[], Any]) -> Any:
        return await act()

    async def each(self, method: str, what: str, *arguments: Any) -> list[Any]:
        if method == "will_send":
            self.sending = BASE if arguments[0] else ADAPTERS
        return [{"push_buckets": (ADAPTERS,), "base_buckets": (BASE,)}.get(method)]


class Engines:
    """Engines that keep the buckets of a push, as `actors.weights.receiver` does."""

    def __init__(self, learners: Learners, places: Iterable[int]) -> None:
        self.learners = learners
        self.supervisor = self
        self.workers = [self.new(place) for place in places]
        self.kept: dict[Replica, list[int]] = {}
        self.base_digest = 7
        self.lose: set[Bucket] = set()
        self.transfers: list[tuple[str, list[int]]] = []

    def new(self, place: int) -> Replica:
        return Replica(place, None, "started", joined=True)

    def grow(self) -> None: ...

    async def ready(self) -> list[Replica]:
        return self.workers

    def serve(self, workers: Iterable[Replica]) -> None:
        self.served = [worker.place for worker in workers]

    async def each(self, workers: Iterable[Replica], method: str, what: str, *_: Any) -> dict[Replica, Any]:
        receipt = {"digests": [] if ADAPTERS in self.lose else [3], "missing": [], "stale": []}
        return {worker: [receipt | {"base": self.kept.get(worker, [])}] for worker in workers}

    async def transfer(self, ends: Any) -> list[int]:
        (bucket,) = ends.buckets
        assert bucket is self.learners.sending, "the ranks would send something else"
        self.transfers.append(("base" if bucket is BASE else "adapters", ends.engines))
        if bucket is ADAPTERS:
            return [3]
        for worker in ends.workers:
            self.kept[worker] = [] if BASE in self.lose else [self.base_digest]
        return [self.base_digest]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines(Learners(), (0, 1))
    monkeypatch.setattr(module, "find", lambda name: engines)

    async def unprobed(self: WeightPush, version: int, workers: Sequence[Replica]) -> None: ...

    monkeypatch.setattr(WeightPush, "_probe_difference", unprobed)
    return engines


def pushing(engines: Engines) -> Callable[[int], Any]:
    push = WeightPush(engines.learners, engines, "gloo", Push(), [])  # type: ignore[arg-type]
    return lambda version: asyncio.run(push.push(version))


def test_the_base_goes_to_each_engine_once(engines: Engines) -> None:
    push = pushing(engines)
    report = push(0)
    assert engines.transfers == [("base", [0, 1]), ("adapters", [0, 1])] and report.nbytes == ADAPTERS.nbytes
    push(1)
    engines.workers[1] = engines.new(1)  # another in its place
    push(2)
    assert engines.transfers[2:] == [("adapters", [0, 1]), ("base", [1]), ("adapters", [0, 1])]
    assert engines.served == [0, 1]


def test_an_engine_whose_base_or_adapters_did_not_come_is_refused(engines: Engines) -> None:
    engines.lose = {BASE}
    with pytest.raises(RunError, match="worker 0 does not hold the frozen weights that the adapters are for"):
        pushing(engines)(0)
    engines.lose = {ADAPTERS}
    with pytest.raises(RunError, match="did not arrive: rollout worker 0 received 0 of 1 buckets"):
        pushing(engines)(0)
    assert not any(worker.has_base for worker in engines.workers)


def test_an_engine_that_forgot_its_base_is_refused(engines: Engines) -> None:
    push = pushing(engines)
    push(0)
    engines.kept.clear()
    with pytest.raises(RunError, match=r"policy version 1 did not arrive: .* does not hold the frozen weights"):
        push(1)


def test_frozen_weights_that_change_end_the_run(engines: Engines) -> None:
    push = pushing(engines)
    push(0)
    engines.workers[0], engines.base_digest = engines.new(0), 8
    with pytest.raises(RunError, match="frozen weights have changed before the push of policy version 1"):
        push(1)
