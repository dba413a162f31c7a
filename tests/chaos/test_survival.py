"""Rollout workers that die or stall: the others go on with what was theirs, and they come back with the present weights."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from empty_worker import LoadedEmptyWorker, empty_workers, places, until
from push_system import PROBLEMS, System, build
from stalling_engines import SlowWorker, StallingWorker
from system import judged_group
from tiny import naive_logprobs, naive_model

from actors.rollout.supervisor import Replica
from actors.rollout.worker import Request
from openrs_ray.errors import RunError
from openrs_ray.records import Completion

pytestmark = [pytest.mark.cpu_engine, pytest.mark.timeout(600)]
TWO = {"placement": {"num_rollout_gpus": 2}}


def requests(samples: int = 4) -> list[Request]:
    return [Request(p.index, s, p.prompt_ids, 100 * p.index + s, 1.0, 24) for p in PROBLEMS for s in range(samples)]


def learn(system: System, version: int, completions: list[Completion]) -> None:
    """A step that changes the weights."""
    groups = [judged_group(p.index, p, [c for c in completions if c.position == p.index], version) for p in PROBLEMS]
    assert system.run(system.learners.train(groups, version)).metrics["grad_norm"] > 0


def assert_sampled_from(system: System, completions: list[Completion], version: int, folder: Path) -> None:
    """All of them, once, by the weights that the learner has."""
    assert sorted((c.position, c.sample) for c in completions) == [(r.position, r.sample) for r in requests()]
    system.run(system.learners.export(folder))
    reference = naive_model(folder)
    for c in completions:
        assert {span.version for span in c.versions} == {version}
        expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids)
        np.testing.assert_allclose(c.logprobs, expected.detach().numpy(), atol=1e-3)


def until_started(system: System, workers: list[int]) -> None:
    async def wait() -> None:
        while sorted(places(system.workers.supervisor.alive)) != workers:
            await asyncio.sleep(0.1)

    system.run(wait())


def family(replica: Replica) -> list[psutil.Process]:
    """The actor's process and those of its engine."""
    assert replica.processes is not None
    found = list(replica.processes.found())
    assert len(found) >= 2
    return found


def named(processes: list[psutil.Process], name: str) -> psutil.Process:
    (process,) = (process for process in processes if name in " ".join(process.cmdline()))
    return process


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def sample_and(system: System, act: Callable[[], None]) -> list[Completion]:
    """Completions of the present version; `act` once the first have come."""

    async def sample() -> list[Completion]:
        found: list[Completion] = []
        async for completion in system.workers.completions(requests()):
            if not found:
                act()
            found.append(completion)
        return found

    return system.run(sample())


@pytest.fixture(scope="module")
def pair(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, list[str]]]:
    """Two engines, the second slow to answer, and what is reported of them. After each test both serve again."""
    losses: list[str] = []
    system = build(
        tmp_path_factory.mktemp("pair"), False, SlowWorker, report=losses.append, push={"deadline_s": 10},
        learner={"learning_rate": 3e-3}, **TWO,
    )  # fmt: skip
    try:
        system.run(system.push.push(0))
        yield system, losses
    finally:
        system.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("EngineCore", signal.SIGKILL),
        ("SlowWorker", signal.SIGKILL),
        ("EngineCore", signal.SIGSTOP),
    ],
)
def test_what_a_worker_had_in_hand_is_sampled_by_the_other(
    pair: tuple[System, list[str]], tmp_path: Path, victim: str, number: signal.Signals
) -> None:
    """Whether it was killed, or its engine, or its engine only says nothing any more."""
    system, losses = pair
    losses.clear()
    version = system.push.version
    lost = next(replica for replica in system.workers.supervisor.serving if replica.place == 1)
    processes = family(lost)
    chosen = named(processes, victim)
    completions = sample_and(system, lambda: chosen.send_signal(number))
    assert {c.worker for c in completions} == {0}
    assert_sampled_from(system, completions, version, tmp_path / "policy-before")
    assert len(losses) == 1 and losses[0].startswith("rollout worker 1 is lost")

    learn(system, version + 1, completions)
    until_started(system, [0, 1])
    assert all(map(gone, processes)), "nothing may be left of the one that was lost"
    assert places(system.workers.supervisor.serving) == [0], "it serves when a push has reached it, not before"
    system.run(system.push.push(version + 1))
    assert places(system.workers.supervisor.serving) == [0, 1]
    completions = system.run(system.sample(version + 1, 1.0))
    assert {c.worker for c in completions} == {0, 1}
    assert_sampled_from(system, completions, version + 1, tmp_path / "policy-after")
    assert len(losses) == 1


@pytest.mark.slow
def test_an_engine_stopped_in_the_middle_of_a_push_holds_up_nobody(ray_session: None, tmp_path: Path) -> None:
    mark = tmp_path / "stall-once"
    mark.touch()
    losses: list[str] = []
    deadline_s = 20
    system = build(
        tmp_path, False, StallingWorker, report=losses.append, environment={"STALL_ONCE": str(mark)}, vocabulary=6000,
        push={"deadline_s": deadline_s}, learner={"learning_rate": 3e-3}, **TWO,
    )  # fmt: skip
    try:
        system.run(system.push.push(0))
        learn(system, 1, system.run(system.sample(0, 1.0)))
        both = [family(replica) for replica in system.workers.supervisor.serving]
        began = time.monotonic()
        system.run(system.push.push(1))
        assert time.monotonic() - began < 2 * deadline_s
        assert not mark.exists() and len(losses) == 1
        (survivor,) = places(system.workers.supervisor.serving)
        completions = system.run(system.sample(1, 1.0))
        assert {c.worker for c in completions} == {survivor}
        assert_sampled_from(system, completions, 1, tmp_path / "policy-1")
        learn(system, 2, completions)
        until_started(system, [0, 1])
        assert all(map(gone, both[1 - survivor])) and not any(map(gone, both[survivor]))
        system.run(system.push.push(2))
        assert sorted(places(system.workers.supervisor.serving)) == [0, 1]
        assert_sampled_from(system, system.run(system.sample(2, 1.0)), 2, tmp_path / "policy-2")
    finally:
        system.close()


@pytest.mark.slow
def test_the_only_worker_dies_and_the_step_goes_on_when_it_is_back(ray_session: None, tmp_path: Path) -> None:
    losses: list[str] = []
    system = build(tmp_path, True, report=losses.append, learner={"learning_rate": 3e-3})
    try:
        system.run(system.push.push(0))
        learn(system, 1, system.run(system.sample(0, 1.0)))
        system.run(system.push.push(1))
        named(family(system.workers.supervisor.serving[0]), "RolloutWorker").kill()
        assert_sampled_from(system, system.run(system.sample(1, 1.0)), 1, tmp_path / "policy-1")
        assert len(losses) == 1
    finally:
        system.close()


def test_a_worker_that_never_comes_to_serve_is_given_up(ray_session: None, tmp_path: Path) -> None:
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append)

    async def lose_it_three_times() -> None:
        await workers.start()
        for _ in range(3):
            await until(lambda: bool(workers.supervisor.alive))
            workers.supervisor.lost(workers.supervisor.alive[0], "again")
        with pytest.raises(RunError, match="no rollout worker is left; the last one was lost because: again"):
            await workers.supervisor.ready()
        await workers.stop()

    try:
        asyncio.run(lose_it_three_times())
        assert losses[-1] == "rollout worker 0 is given up after 3 failures in a row" and len(losses) == 4
    finally:
        placement.release()


def test_a_worker_with_a_model_s_own_weights_serves_at_once_and_is_waited_for(
    ray_session: None, tmp_path: Path
) -> None:
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append, LoadedEmptyWorker)

    async def lose_it() -> None:
        await workers.start()
        supervisor = workers.supervisor
        for _ in range(4):  # more often than a place may fail
            (first,) = supervisor.serving
            first.proven = True
            supervisor.lost(first, "gone")
            assert supervisor.serving == []
            assert (await workers._someone()).place == 0, "nobody serves: the next one is waited for"
        for _ in range(2):
            supervisor.lost(supervisor.serving[0], "it dies of what it is asked")
            await workers._someone()
        supervisor.lost(supervisor.serving[0], "it dies of what it is asked")
        with pytest.raises(RunError, match="the last one was lost because: it dies of what it is asked"):
            await workers._someone()
        await workers.stop()

    try:
        asyncio.run(lose_it())
        assert losses[-1] == "rollout worker 0 is given up after 3 failures in a row"
    finally:
        placement.release()


def test_an_extra_worker_that_cannot_start_is_given_up_and_harms_nobody(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.rollout.supervisor._PAUSE_S", 0.1)
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append, max_rollout_gpus=2)

    async def grow_in_vain() -> None:
        await workers.start()
        workers.supervisor.serve(workers.supervisor.alive)
        workers.supervisor.grow()
        await until(lambda: "given up" in losses[-1])
        workers.supervisor.grow()
        assert places(await workers.supervisor.ready()) == [0] == places(workers.supervisor.serving)
        await workers.stop()

    try:
        asyncio.run(grow_in_vain())
        assert losses[0] == "the cluster has room for rollout worker 1, which is started"
        assert losses[-1] == "rollout worker 1 is given up after 3 failures in a row"
        assert list(placement.rollout_groups) == [0], "its place is given back"
    finally:
        placement.release()
