"""Problems of reasoning-gym by name: `data.path: reasoning-gym:chain_sum`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openrs_ray.adapters.call import Library
from openrs_ray.adapters.extras import require
from openrs_ray.adapters.names import REASONING_GYM
from openrs_ray.errors import UserError

_AT_ONCE = 200
"""Problems made between two deadlines."""

Level = int | Mapping[str, int]
Stage = tuple[Level | None, int | None]
"""Level, and number of problems."""


def read(path: str, parameters: Mapping[str, Any], stages: Sequence[Stage] = ()) -> list[dict[str, Any]]:
    """Its problems, stage after stage, the same for the same arguments. UserError."""
    require("reasoning_gym", "reasoning-gym", f"data.path {path}")
    name, rows, given = path.removeprefix(REASONING_GYM), list[dict[str, Any]](), {"seed": 0, **parameters}
    with Library("reasoning_gym_library", f"data.path {path}") as library:
        for level, problems in stages or ((None, None),):
            if problems is not None and "size" in parameters:
                raise UserError("data.curriculum says how many problems there are: leave out data.parameters.size")
            # The library draws each problem by seed plus index: a stage goes on where the one before it ends.
            own = given | {"seed": given["seed"] + len(rows)} | ({} if problems is None else {"size": problems})
            size = library.call("size", name, own, level)
            for start in range(0, size, _AT_ONCE):
                rows += library.call("rows", name, own, level, start, min(start + _AT_ONCE, size))
    return rows
