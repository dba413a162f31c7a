"""A rollout worker without an engine, in a module that is imported at once."""

from actors.rollout import RolloutWorker
from openrs_ray.errors import RunError


class EmptyWorker(RolloutWorker):
    """The second one cannot even start."""

    async def start(self) -> None:
        if self._worker == 1:
            raise RunError("no engine for this one")

    async def stop(self) -> None:
        pass


class LoadedEmptyWorker(EmptyWorker):
    """Would hold a model's own weights."""

    holds_weights = True
