"""A learner, engines and the push between them, in real processes on one event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from system import system_config
from tiny import save_model

from actors.cluster.placement import Placement, reserve
from actors.learner.group import LearnerGroup, new_ranks
from actors.loop.push import WeightPush
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request, RolloutWorker
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.common.private_folder import folder_of
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Completion, Problem

T = TypeVar("T")
EOS = 2
PROBLEMS = [Problem(i, str(i), tuple(range(5 + i, 11 + 2 * i)), ("1",)) for i in range(4)]


@dataclass
class System:
    """A learner, engines and the push between them, on one event loop."""

    loop: asyncio.AbstractEventLoop
    placement: Placement
    learners: LearnerGroup
    workers: EnginePool
    push: WeightPush
    folder: Path

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 240))

    async def sample(self, version: int, temperature: float, samples: int = 4) -> list[Completion]:
        requests = [
            Request(p.index, s, p.prompt_ids, 100 * p.index + s, temperature, 24)
            for p in PROBLEMS
            for s in range(samples)
        ]
        completions = [c async for c in self.workers.completions(requests)]
        assert {span.version for c in completions for span in c.versions} == {version}
        return completions

    def close(self) -> None:
        folders = [
            folder_of(replica.processes.mark) for replica in self.workers.supervisor.serving if replica.processes
        ]
        self.run(self.workers.stop())
        assert not any(folder.exists() for folder in folders), "an engine's sockets stay behind"
        self.run(self.learners.stop())
        self.placement.release()
        self.loop.close()


def with_environment(placement: Placement, environment: dict[str, str]) -> Placement:
    """The same places, with more environment variables for the rollout workers."""

    class WithEnvironment(type(placement)):  # type: ignore[misc]
        def rollout_options(self, worker: int) -> dict[str, Any]:
            options: dict[str, Any] = super().rollout_options(worker)
            return options | {"runtime_env": {"env_vars": options["runtime_env"]["env_vars"] | environment}}

    return WithEnvironment(**vars(placement))


def build(
    folder: Path,
    tied: bool,
    worker_class: type[RolloutWorker] = RolloutWorker,
    place: Callable[[RunConfig], Placement] | None = None,
    report: Callable[[str], None] = pytest.fail,
    environment: dict[str, str] | None = None,
    vocabulary: int = 64,
    **changes: dict[str, Any],
) -> System:
    """A started system; `environment` is added to that of the rollout workers."""
    model = save_model(folder / "model", tied=tied, vocabulary=vocabulary)
    config = system_config(folder, model, **changes)
    placement = place(config) if place else reserve(plan_layout(config, "cpu"), config.placement.wait_s)
    if environment:
        placement = with_environment(placement, environment)
    learners = LearnerGroup(config, partial(new_ranks, config, placement, str(model)))
    settings = EngineSettings.of_run(config, str(model), (EOS,))
    workers = EnginePool(settings, placement, worker_class, report, lambda: push.revive())
    probe = [(p.prompt_ids[:1], p.prompt_ids[1:]) for p in PROBLEMS]
    quantization = config.rollout.quantization
    push = WeightPush(learners, workers, placement.layout.transport, config.push, probe, quantization)
    system = System(asyncio.new_event_loop(), placement, learners, workers, push, folder)

    async def start() -> None:
        await workers.start()  # alone: on a shared GPU it looks at what is free
        await learners.start()

    system.run(start())
    return system
