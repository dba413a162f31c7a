"""Every field of a config in words: for `--help`, and as the page docs/fields.md."""

import textwrap
from collections.abc import Container
from typing import Any

from pydantic import BaseModel

from openrs_ray.config import RunConfig
from openrs_ray.resumable import fixed_fields
from openrs_ray.settings.fields import Names, default_text, describe


def help_text(width: int = 100) -> str:
    """Every dotted field with its type, default and sentence, by section; no line is longer than `width`."""
    lines = [
        "python -m launch.train RECIPE [--dotted.field VALUE ...] [--dry-run] [--resume] [--restart]",
        "",
        "--dry-run  Say what the run would do and need, and start nothing.",
        "--resume   Go on with the run from its last checkpoint, or begin it.",
        "--restart  Start the run again from its last checkpoint whenever its process dies or it breaks.",
        "",
        *textwrap.wrap("VALUE is written as in YAML: 2e-6, true, null, [a, b], {accuracy: 2.0}.", width),
        *textwrap.wrap("A field marked [fixed] keeps its value when a run is resumed; the others may change.", width),
        *field_lines(RunConfig, {}, width, {*fixed_fields(RunConfig)}),
    ]
    return "\n".join(lines) + "\n"


def field_lines(
    model: type[BaseModel], content: dict[str, Any], width: int = 100, fixed: Container[str] = ()
) -> list[str]:
    """The part of a help text about the fields, with those `fixed` marked.

    Mappings of sections have the entries that `content` gives them.
    """
    lines: list[str] = []
    section = ""
    for dotted, field in Names.of(model, content).fields.items():
        if dotted.split(".")[0] != section:
            section = dotted.split(".")[0]
            lines += ["", f"{section}:"]
        kind = f"({describe(field)}{default_text(field)})"
        lines += textwrap.wrap(f"--{dotted}  {kind}", width, initial_indent="  ", subsequent_indent="      ")
        sentence = " ".join([*(field.description or "").split(), *(["[fixed]"] if dotted in fixed else [])])
        lines += textwrap.wrap(sentence, width, initial_indent="      ", subsequent_indent="      ")
    return lines
