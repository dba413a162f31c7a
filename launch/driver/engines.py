"""Engines of an evaluation, with one model at a time."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from actors.cluster.placement import place_engines
from actors.rollout.loaded import loaded_engines
from actors.rollout.pool import EnginePool
from openrs_ray.evaluation.config import EvaluationConfig
from openrs_ray.run.account import Account

if TYPE_CHECKING:
    from launch.driver.evaluated import Block, Prepared


class Engines:
    """Starts engines for the model that is asked for, and keeps them until another one is; each model pays for its own.

    async with Engines(config, warn) as engines:
        pool = await engines.of(prepared)
    """

    def __init__(self, config: EvaluationConfig, warn: Callable[[str], None]) -> None:
        self._config, self._warn = config, warn
        self._held = AsyncExitStack()
        self._loaded: tuple[str, EnginePool] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._held.__aexit__(kind, error, at)

    async def of(self, prepared: "Prepared") -> EnginePool:
        """Engines with a model. RunError when they do not start."""
        label = prepared.subject.label
        if self._loaded and self._loaded[0] == label:
            return self._loaded[1]
        self._loaded = None
        await self._held.aclose()
        config, folder = self._config, prepared.store.folder
        placement = place_engines(config.placement, config.engine)
        gpus = len(placement.layout.rollout) * config.engine.tensor_parallel
        self._held.enter_context(Account(folder, config.cost.price_per_gpu_hour or 0.0, lambda: gpus))
        pool = await self._held.enter_async_context(loaded_engines(prepared.settings, placement, self._warn))
        self._loaded = label, pool
        return pool

    def loaded_first(self, block: "Block") -> "Block":
        """The models of a block, beginning with the one that the engines hold."""
        return sorted(block, key=lambda one: self._loaded is None or one[0].subject.label != self._loaded[0])
