"""Names of other libraries' problems in a recipe. Light to import."""

from collections.abc import Mapping
from typing import Any

REASONING_GYM = "reasoning-gym:"
VERIFIERS = "verifiers:"
KINDS = {REASONING_GYM: "reasoning_gym", VERIFIERS: "verifiers"}
"""Answers and rewards of a library have its name."""


def kind_of(path: str) -> str | None:
    """Example: "reasoning_gym" of "reasoning-gym:chain_sum"; None for problems of one's own."""
    return next((kind for prefix, kind in KINDS.items() if path.startswith(prefix)), None)


def implied(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content with what problems of a library bring along, where it says nothing else: they judge themselves."""
    given = dict(content)
    path, section = _path_of(given), given.get("environment")
    name = section.get("name") if isinstance(section, dict) else section
    if path is None and isinstance(name, str) and name.startswith(VERIFIERS):
        parameters = section.get("parameters", {}) if isinstance(section, dict) else {}
        given["data"] = {"parameters": parameters, **(given.get("data") or {}), "path": name}
        path = name
    kind = kind_of(path or "")
    if kind is None:
        return given
    given.setdefault("answer", {"kind": kind})
    given["rewards"] = {"weights": {kind: 1.0}, **(given.get("rewards") or {})}
    if kind == "verifiers":
        given.setdefault("environment", path)
    return given


def _path_of(content: Mapping[str, Any]) -> str | None:
    data = content.get("data")
    path = data.get("path") if isinstance(data, dict) else None
    return path if isinstance(path, str) else None
