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
    data = content.get("data")
    if isinstance(data, list | tuple):
        return {**content, "data": [_of_data_set(one) if isinstance(one, dict) else one for one in data]}
    if data is not None and not isinstance(data, dict):
        return dict(content)
    brought = _of_data_set(
        {**(data or {}), **{part: content[part] for part in _PARTS if content.get(part) is not None}}
    )
    parts = {part: brought.pop(part) for part in _PARTS if part in brought}
    return {**content, **parts, **({"data": brought} if brought else {})}


_PARTS = ("environment", "answer", "rewards")
"""Sections that a data set of a list has of its own."""


def _of_data_set(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same for one data set with its sections in it."""
    given, section = dict(data), data.get("environment")
    name = section.get("name") if isinstance(section, dict) else section
    if "path" not in given and isinstance(name, str) and name.startswith(VERIFIERS):
        parameters = section.get("parameters", {}) if isinstance(section, dict) else {}
        given = {"path": name, "parameters": parameters, **given}
    path = given.get("path")
    kind = kind_of(path) if isinstance(path, str) else None
    if kind is None:
        return given
    given.setdefault("answer", {"kind": kind})
    if isinstance(given.get("rewards", {}), dict):
        given["rewards"] = {"weights": {kind: 1.0}, **given.get("rewards", {})}
    if kind == KINDS[VERIFIERS]:
        given["environment"] = {"name": path, **section} if isinstance(section, dict) else (section or path)
    return given
