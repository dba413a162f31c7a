"""Refuses to go on with work on another request."""

import json
from collections.abc import Mapping
from typing import Any

from openrs_ray.errors import UserError

_NOTHING = object()


def check_same(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    work: str,
    instead: str,
    contents: Mapping[str, str] | None = None,
) -> None:
    """UserError about the first value that differs, by name.

    Args:
        work: begun with `before`. Example: "run open-rs3"
        instead: the way out. Example: "choose another run.name"
        contents: meaning of fingerprints among the values, in the plural, by name.
    """
    for name in dict.fromkeys((*now, *before)):
        old, new = (values.get(name, _NOTHING) for values in (before, now))
        if old == new:
            continue
        if contents and name in contents:
            raise UserError(f"{contents[name]} have changed since {work} began: restore them, or {instead}")
        what = name if "." in name or " " in name else f"setting {name}"
        raise UserError(
            f"{what} was {_shown(old)} when {work} began and cannot become {_shown(new)} on resume: set it back, or {instead}"
        )


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else json.dumps(value)
