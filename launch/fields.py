"""`python -m launch.fields FILE`: writes the page docs/fields.md, made from the configs in the code.

`--json` in place of FILE: every field as JSON, for editors and other programs.
"""

import json
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from launch.cli.command import command
from launch.cli.options import Parser
from openrs_ray.common.console import json_output
from openrs_ray.common.formatting import shortened
from openrs_ray.config.fields import Names, as_json, describe, top_level
from openrs_ray.config.resumable import fixed_fields
from openrs_ray.config.schema import Run, RunConfig
from openrs_ray.curation.recipe import Recipe, example

COMMAND = "python -m launch.fields docs/fields.md"
_LONGEST = 80
_HEAD = f"""# All fields

Made by `{COMMAND}` from the code; do not edit.

A field is set in a recipe, or on the command line as `--dotted.field VALUE`. VALUE is written as in YAML. `--help SECTION` shows
the same for one section.

- [Of a run](#of-a-run) (`launch.train`, `launch.reproduce`, `launch.probe`)
- [Of a curated set](#of-a-curated-set) (`launch.curate`)
"""
_RUN = """
## Of a run

A field marked "fixed" keeps its value when a run is resumed; the others may change.
"""
_SET = """
## Of a curated set

`<source>` is a name of your own; so is that of each stage, of which one of each kind is shown.
"""


def fields_page() -> str:
    parts = [
        _HEAD,
        _RUN,
        *_tables(RunConfig, {}, fixed_fields(RunConfig, entries=True)),
        _SET,
        *_tables(Recipe, example(), ()),
    ]
    # The default folder is another one where OPENRS_RUNS is set.
    here = json.dumps(str(Run.model_fields["folder"].get_default()))[:-1]
    return "".join(parts).replace(f"`{here}", f'`"{Path("~/openrs_runs")}')


def _tables(model: type[BaseModel], content: dict[str, Any], fixed: Container[str]) -> list[str]:
    lines: list[str] = []
    section = None
    for dotted, field in Names.of(model, content, entries=True).fields.items():
        first, inner = top_level(dotted), "." in dotted
        if (first if inner else "") != section:
            section = first if inner else ""
            lines.append(f"\n### {section or 'top level'}\n\n| field | takes | default | |\n|---|---|---|---|\n")
        default = "required"
        if not field.is_required():
            default = f"`{shortened(json.dumps(as_json(field.get_default())), _LONGEST)}`"
        sentence = " ".join([*(field.description or "").split(), *(["(fixed)"] if dotted in fixed else [])])
        lines.append(f"| `{dotted}` | {_cell(describe(field))} | {default} | {_cell(sentence)} |\n")
    return lines


def _cell(text: str) -> str:
    """Escapes | everywhere, and < outside code."""
    pieces = text.replace("|", "\\|").split("`")
    return "`".join(piece if number % 2 else piece.replace("<", "\\<") for number, piece in enumerate(pieces))


@command
def main(arguments: list[str]) -> None:
    parser = Parser("fields", __doc__)
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="docs/fields.md")
    parser.add_json()
    options = parser.parse_args(arguments)
    if options.file is None and not options.json:
        parser.error("the following arguments are required: FILE")
    if options.file is not None:
        options.file.write_text(fields_page(), encoding="utf-8")
    with json_output(options.json) as document:
        fixed = fixed_fields(RunConfig, entries=True)
        document({"run": _as_json(RunConfig, {}, fixed), "curated_set": _as_json(Recipe, example(), ())})


def _as_json(model: type[BaseModel], content: dict[str, Any], fixed: Container[str]) -> list[dict[str, Any]]:
    return [
        {
            "field": dotted,
            "takes": describe(field),
            "required": field.is_required(),
            "default": None if field.is_required() else as_json(field.get_default()),
            "fixed_on_resume": dotted in fixed,
            "about": " ".join((field.description or "").split()),
        }
        for dotted, field in Names.of(model, content, entries=True).fields.items()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
