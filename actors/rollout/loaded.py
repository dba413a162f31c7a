"""Engines without a learner, with a model's own weights: for evaluation and curation."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from actors.cluster.placement import Placement
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from openrs_ray.errors import RunError


class LoadedWorker(RolloutWorker):
    """Loads the model's weights as policy version 0."""

    holds_weights = True

    def _engine_arguments(self) -> dict[str, Any]:
        return super()._engine_arguments() | {"load_format": "auto"}

    async def start(self) -> None:
        await super().start()
        await self._engine.update_weight_version("0")


@asynccontextmanager
async def loaded_engines(
    settings: EngineSettings, placement: Placement, report: Callable[[str], None]
) -> AsyncIterator[EnginePool]:
    """Started engines; they end with the block and release their places. `report` is told of every loss."""
    pool = EnginePool(settings, placement, LoadedWorker, report)
    try:
        await pool.start()
        yield pool
    finally:
        with suppress(RunError):  # the engines end with their places in any case
            await pool.stop()
        placement.release()
