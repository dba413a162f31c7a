"""The mark of config fields, or sections, that may change on resume.

All others are fixed: another prompt, reward or seed is another experiment. Marked are lengths of time, sizes of engines,
learner ranks, micro-batches, learning rate and loss (which enter anew at every step), `run.steps` and the folder.
"""

from typing import Any, Final

from pydantic import BaseModel

from openrs_ray.config.fields import Names


class _Free:
    """Type of the mark."""


FREE: Final = _Free()


def fixed_fields(model: type[BaseModel], content: Any = None, entries: bool = False) -> frozenset[str]:
    """By name; `content` and `entries` as in `Names.of`."""
    names = Names.of(model, content or {}, entries)
    free = tuple(f"{name}." for name, field in names.all.items() if FREE in field.metadata)
    return frozenset(name for name in names.fields if not f"{name}.".startswith(free))
