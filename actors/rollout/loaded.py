"""A rollout worker without a learner: it samples from a model as it lies in its folder."""

from typing import Any

from actors.rollout.worker import RolloutWorker


class LoadedWorker(RolloutWorker):
    """Starts with the model's own weights as policy version 0, instead of dummy ones that wait for a push."""

    holds_weights = True

    def _engine_arguments(self) -> dict[str, Any]:
        return super()._engine_arguments() | {"load_format": "auto"}

    async def start(self) -> None:
        await super().start()
        await self._engine.update_weight_version("0")
