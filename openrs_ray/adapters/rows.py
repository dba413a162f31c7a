"""Rows of other libraries' problems."""

from typing import Any

from openrs_ray.adapters import reasoning_gym, verifiers
from openrs_ray.adapters.names import REASONING_GYM
from openrs_ray.config.data import Data


def library_rows(data: Data) -> list[dict[str, Any]]:
    """Problems of `data.path`, which names a library's, the same on every machine. UserError."""
    if data.path.startswith(REASONING_GYM):
        return reasoning_gym.read(
            data.path, data.parameters, [(stage.level, stage.problems) for stage in data.curriculum]
        )
    return verifiers.read(data.path, data.parameters)
