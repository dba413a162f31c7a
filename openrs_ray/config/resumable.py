"""Marks the config fields that may change when a run is resumed (or whole sections); all others are fixed.

A field is fixed without anybody thinking of it, because the costly mistake is the other one: another prompt, reward or seed is
another experiment under the same name. Marked are lengths of time, sizes of engines, the number of learner ranks,
micro-batches, the learning rate and the loss (both enter anew at every step), `run.steps`, and where the run lies.
"""

from typing import Any, Final

from pydantic import BaseModel


class _Free:
    """The marker's kind; pydantic keeps it in a field's metadata and ignores it."""


FREE: Final = _Free()
"""In `Annotated[int, FREE]`: a resume may change this field, or everything in this section."""


def fixed_fields(model: type[BaseModel], prefix: str = "") -> frozenset[str]:
    """Dotted names of the fields that a resume may not change."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if FREE in field.metadata:
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fixed_fields(kind, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return frozenset(found)
