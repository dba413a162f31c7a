"""The help text: every field of a config in words."""

import difflib
import textwrap
from collections.abc import Container
from typing import Any

from pydantic import BaseModel

from openrs_ray.config.fields import Names, default_text, describe, top_level
from openrs_ray.config.names import recipe_lines
from openrs_ray.config.resumable import fixed_fields
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

_WIDTH = 100


def help_text(section: str = "") -> str:
    """Every field of a run, or of one section (or one field). UserError where there is no such section."""
    fixed = {*fixed_fields(RunConfig, entries=True)}
    if section:
        return "\n".join(section_lines(RunConfig, {}, section, fixed)) + "\n"
    lines = [
        "python -m launch.train RECIPE [--dotted.field VALUE ...] [OPTION ...]",
        "",
        "RECIPE is a file, or the name of a recipe below or of a run, which goes on with the settings it has.",
        "",
        "--dry-run       Say what the run would do and need, and start nothing.",
        "--resume        Go on with the run from its last checkpoint, or begin it.",
        "--restart       Start the run again from its last checkpoint whenever its process dies or it breaks.",
        "--page          Serve the run page beside the run, to browsers on this machine; prints its address.",
        "--json          Write the result to stdout as one JSON document, and everything else to stderr.",
        "--help SECTION  Only the fields of one section, such as rollout.",
        *recipe_lines("run"),
        "",
        *textwrap.wrap("VALUE is written as in YAML: 2e-6, true, null, [a, b], {accuracy: 2.0}.", _WIDTH),
        *textwrap.wrap("A field marked [fixed] keeps its value when a run is resumed; the others may change.", _WIDTH),
        *field_lines(RunConfig, {}, fixed),
    ]
    return "\n".join(lines) + "\n"


def section_lines(
    model: type[BaseModel], content: dict[str, Any], section: str, fixed: Container[str] = ()
) -> list[str]:
    """UserError where there is no such section or field."""
    names = Names.of(model, content)
    if section not in names.all:
        near = difflib.get_close_matches(section, names.all, n=1)
        nearest = f"the nearest one is {near[0]}; " if near else ""
        raise UserError(f"there is no section {section}: {nearest}there are {', '.join(model.model_fields)}")
    return field_lines(model, content, fixed, section)[1:]


def field_lines(
    model: type[BaseModel], content: dict[str, Any], fixed: Container[str] = (), only: str = ""
) -> list[str]:
    """All fields (or those of `only`), `fixed` ones marked; `content` gives mappings their entries."""
    lines: list[str] = []
    section = ""
    for dotted, field in Names.of(model, content, entries=True).fields.items():
        if only and not f"{dotted}.".replace("[N].", ".").startswith(f"{only}."):
            continue
        if top_level(dotted) != section:
            section = top_level(dotted)
            lines += ["", f"{section}:"]
        kind = f"({describe(field)}{default_text(field)})"
        lines += textwrap.wrap(f"--{dotted}  {kind}", _WIDTH, initial_indent="  ", subsequent_indent="      ")
        sentence = " ".join([*(field.description or "").split(), *(["[fixed]"] if dotted in fixed else [])])
        lines += textwrap.wrap(sentence, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    return lines
