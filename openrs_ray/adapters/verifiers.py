"""Environments of verifiers by name: `data.path: verifiers:reverse-text`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openrs_ray.adapters.call import Library
from openrs_ray.adapters.extras import require
from openrs_ray.adapters.names import VERIFIERS


def read(path: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The environment's tasks, with the messages that open their conversations. UserError."""
    require("verifiers", "verifiers", f"data.path {path}")
    with Library("verifiers_library", f"data.path {path}") as library:
        rows: list[dict[str, Any]] = library.call("rows", path.removeprefix(VERIFIERS), parameters)
    return rows
