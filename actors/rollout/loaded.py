"""Engines without a learner, which sample from a model as it lies in its folder: for evaluation and curation."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from actors.cluster.placement import Placement
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from openrs_ray.errors import RunError


class LoadedWorker(RolloutWorker):
    """Starts with the model's own weights as policy version 0, instead of dummy ones that wait for a push."""

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
    """Engines that hold the model's weights, started; they end with the block, and their places are given back.

    `report` is told of every engine that is lost. RunError when one does not start.
    """
    pool = EnginePool(settings, placement, LoadedWorker, report)
    try:
        await pool.start()
        yield pool
    finally:
        with suppress(RunError):  # the engines end with their places in any case
            await pool.stop()
        placement.release()
