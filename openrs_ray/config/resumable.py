"""The mark of config fields, or sections, that may change on resume; all others are fixed.

Fixed is the default: another prompt, reward or seed is another experiment. Marked are lengths of time, sizes of engines,
learner ranks, micro-batches, learning rate and loss (which enter anew at every step), `run.steps` and the folder.
"""

from typing import Any, Final

from pydantic import BaseModel


class _Free:
    """Type of the mark."""


FREE: Final = _Free()
"""`Annotated[int, FREE]`: a resume may change this field or section."""


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
