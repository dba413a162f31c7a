"""The base of every part of a config, and the types of its numbers."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

# Every number has both bounds, so that no typing mistake (1e32 for 1e-32) reaches an engine; infinities and NaN are refused.
Positive = Annotated[int, Field(gt=0, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Parts = Annotated[int, Field(gt=0, le=10_000)]
"""GPUs, processes, threads: things that are held or started at once."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(gt=0, le=2_000_000)]
"""A deadline; the operating system waits for 2^31 milliseconds at most."""
Share = Annotated[float, Field(ge=0, le=1)]
SomeShare = Annotated[float, Field(gt=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1_000_000)]
SomeAmount = Annotated[float, Field(gt=0, le=1_000_000)]
Ratio = Annotated[float, Field(gt=1, le=1_000_000)]
Cpus = Annotated[float, Field(ge=0.001, le=10_000)]
"""Ray counts CPUs in steps of 0.0001."""
Temperature = Annotated[float, Field(ge=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


class Section(BaseModel):
    """Base of every part: unknown keys are errors, values never change after checking."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        """Neither a path nor a prompt may hold what no file, command line or tokenizer takes."""
        if isinstance(value, str | Path) and _UNWRITABLE.search(str(value)):
            raise PydanticCustomError("string_unicode", "text without NUL and lone surrogates")
        return value
