"""From a recipe and the command line to a checked RunConfig (or another config), and to its values by dotted name.

Every mistake is a sentence that names the dotted field, what is wrong and what is allowed; all of them become one UserError.
The parts are in `openrs_ray.config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from openrs_ray.config.cli import Unknown, change
from openrs_ray.config.fields import Names
from openrs_ray.config.messages import Origins, mistakes_error, validation_mistakes
from openrs_ray.config.recipe_file import read_recipe
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

Config = TypeVar("Config", bound=BaseModel)


def load_config(recipe: str | Path, overrides: Sequence[str], flags: Sequence[str] = ()) -> RunConfig:
    """Read a recipe by name or file, apply `--dotted.field VALUE` or `--dotted.field=VALUE` in order, and check everything.

    VALUE is YAML (lists and mappings too); for a text field it is taken as it stands. `flags`: the command's own options, which
    a misspelt name may have meant. UserError for any mistake.
    """
    given = read_recipe(recipe, RunConfig)
    if "stages" in given.content and "run" not in given.content:
        raise UserError(f"the recipe {recipe} is of a data set: make it with python -m launch.curate")
    return checked(RunConfig, given.content, overrides, given.name, given.origins, flags)


def config_from(content: dict[str, Any], overrides: Sequence[str], origin: str, flags: Sequence[str] = ()) -> RunConfig:
    """Like `load_config`, for the content of a recipe that is no file; `origin` names it in messages."""
    return checked(RunConfig, content, overrides, origin, flags=flags)


def checked(
    model: type[Config],
    content: dict[str, Any],
    overrides: Sequence[str],
    origin: str,
    origins: dict[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Config:
    """Like `config_from`, for a config of any kind; `origins` names the file of each value where it is not `origin`."""
    from_where, mistakes = Origins(origin, origins or {}), list[str]()
    unknown: dict[str, str | None] = {}
    for outcome in change(content, overrides, model, flags):
        if isinstance(outcome, str):
            from_where.set_on_command_line(outcome)
        else:
            mistakes.append(str(outcome))
            unknown |= {outcome.dotted: outcome.nearest} if isinstance(outcome, Unknown) else {}
    try:
        config = model.model_validate(content)
    except ValidationError as error:
        names = Names.of(model, content)
        mistakes += validation_mistakes(error, names, content, from_where, unknown)
        raise mistakes_error(mistakes) from error
    if mistakes:
        raise mistakes_error(mistakes)
    return config


def flat(config: BaseModel | dict[str, Any], model: type[BaseModel] = RunConfig) -> dict[str, Any]:
    """JSON values of all fields by dotted name, of a config or of what one of kind `model` would be read from.

    Mappings such as `rewards.weights` are one value.
    """
    if isinstance(config, BaseModel):
        return _flat(config.model_dump(mode="json"), {*Names.of(type(config), {}).sections}, "")
    return _flat(config, {*Names.of(model, {}).sections}, "")


def _flat(content: dict[str, Any], sections: set[str], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        dotted = f"{prefix}{name}"
        if dotted in sections and isinstance(value, dict):
            values |= _flat(value, sections, f"{dotted}.")
        else:
            values[dotted] = value
    return values
