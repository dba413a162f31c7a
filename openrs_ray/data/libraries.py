"""Problems of other libraries by name: `data.path: reasoning-gym:chain_sum` or `verifiers:reverse-text`."""

from collections.abc import Mapping
from typing import Any

from openrs_ray.common.extras import require
from openrs_ray.config.data import Data
from openrs_ray.errors import UserError
from openrs_ray.rewards.libraries.call import Library
from openrs_ray.rewards.libraries.names import REASONING_GYM, VERIFIERS

Row = dict[str, Any]
_AT_ONCE = 200
"""Problems made between two deadlines."""


def library_rows(data: Data) -> list[Row]:
    """Problems of `data.path`, the same on every machine and for every attempt. UserError."""
    read = _reasoning_gym if data.path.startswith(REASONING_GYM) else _verifiers
    return read(data)


def _reasoning_gym(data: Data) -> list[Row]:
    """Stage after stage of `data.curriculum`."""
    require("reasoning_gym", "reasoning-gym", f"data.path {data.path}")
    name, rows = data.path.removeprefix(REASONING_GYM), list[Row]()
    stages: list[tuple[Any, int | None]] = [(stage.level, stage.problems) for stage in data.curriculum]
    if "size" in data.parameters and any(problems for _, problems in stages):
        raise UserError("data.curriculum says how many problems there are: leave out data.parameters.size")
    with Library("reasoning_gym", f"data.path {data.path}") as library:
        for level, problems in stages or [(None, None)]:
            parameters = _of_stage(data.parameters, problems, len(rows))
            size = library.call("size", name, parameters, level)
            for start in range(0, size, _AT_ONCE):
                rows += library.call("rows", name, parameters, level, start, min(start + _AT_ONCE, size))
    return rows


def _of_stage(parameters: Mapping[str, Any], problems: int | None, before: int) -> dict[str, Any]:
    """The library draws each problem by seed plus index: a stage goes on where the one before it ends."""
    given = {"seed": 0, **parameters} | ({} if problems is None else {"size": problems})
    seed = given["seed"]
    return given | {"seed": seed + before} if isinstance(seed, int) and before else given


def _verifiers(data: Data) -> list[Row]:
    require("verifiers", "verifiers", f"data.path {data.path}")
    with Library("verifiers", f"data.path {data.path}") as library:
        rows: list[Row] = library.call("rows", data.path.removeprefix(VERIFIERS), data.parameters)
    return rows
