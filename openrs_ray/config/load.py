"""Loads a checked config from a recipe and the command line; all mistakes become one UserError."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from openrs_ray.config.cli import Unknown, change
from openrs_ray.config.fields import Names
from openrs_ray.config.messages import Origins, mistakes_error, validation_mistakes
from openrs_ray.config.names import CODE, is_run
from openrs_ray.config.recipe_file import Given, read_recipe
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

Config = TypeVar("Config", bound=BaseModel)


def load_config(recipe: str | Path, overrides: Sequence[str], flags: Sequence[str] = ()) -> RunConfig:
    """Read a recipe by name or file, apply `overrides` (`openrs_ray.config.cli.change`), and check everything."""
    given = read_recipe(recipe, RunConfig)
    if "stages" in given.content and "run" not in given.content:
        raise UserError(f"the recipe {recipe} is of a data set: make it with python -m launch.curate")
    config = checked(RunConfig, given.content, overrides, given.name, given.origins, flags)
    config.look_in(_folders(given))
    return config


def _folders(given: Given) -> list[Path]:
    """Folders of a recipe and of those that it extends; of a run, that of its copies of the user's own files."""
    parents = dict.fromkeys(Path(file).absolute().parent for file in (given.name, *given.origins.values()))
    return [parent / CODE if is_run(parent) else parent for parent in parents]


def checked(
    model: type[Config],
    content: dict[str, Any],
    overrides: Sequence[str],
    origin: str,
    origins: dict[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Config:
    """`origin`: the content's source in messages, but for values with `origins` of their own."""
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
        names = Names.of(model, content, inside=True)
        mistakes += validation_mistakes(error, names, content, from_where, unknown)
        raise mistakes_error(mistakes) from error
    if mistakes:
        raise mistakes_error(mistakes)
    return config


def flat(config: BaseModel | dict[str, Any]) -> dict[str, Any]:
    """JSON values by dotted name, of a config or a run's unchecked one. A mapping is one value."""
    if isinstance(config, BaseModel):
        content = config.model_dump(mode="json")
        return _flat(content, {*Names.of(type(config), content).sections}, "")
    return _flat(config, {*Names.of(RunConfig, config).sections}, "")


def _flat(content: dict[str, Any], sections: set[str], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        dotted = f"{prefix}{name}"
        if dotted in sections and isinstance(value, dict):
            values |= _flat(value, sections, f"{dotted}.")
        elif f"{dotted}[0]" in sections and isinstance(value, list):
            for number, entry in enumerate(value):
                values |= _flat(entry, sections, f"{dotted}[{number}].")
        else:
            values[dotted] = value
    return values
