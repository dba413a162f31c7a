"""Reads a recipe with those that it `extends`, and the origin of each value."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from openrs_ray.common.foreign import why
from openrs_ray.config.fields import Names
from openrs_ray.config.names import find_recipe, is_run
from openrs_ray.config.yaml_text import parsed, yaml_problem
from openrs_ray.errors import UserError

EXTENDS = "extends"


@dataclass(frozen=True)
class Given:
    """Unchecked content of a recipe. Example: Given({"fidelity": "as_published"}, {"fidelity": "my.yaml"}, "my.yaml")"""

    content: dict[str, Any]
    origins: dict[str, str]
    """Files by dotted name."""
    name: str

    def over(self, base: "Given", sections: set[str]) -> "Given":
        """This one's values over the base's; a list or mapping that is one value is replaced whole."""
        content = _merged(base.content, self.content, sections, "")
        return Given(content, base.origins | self.origins, self.name)


def read_recipe(recipe: str | Path, model: type[BaseModel]) -> Given:
    """UserError where the recipe, or one that it extends, cannot be read."""
    return _read(find_recipe(recipe), model, ())


def _read(path: Path, model: type[BaseModel], above: tuple[Path, ...]) -> Given:
    if path.resolve() in above:
        circle = [*above[above.index(path.resolve()) :], path]
        raise UserError(f"Recipes extend each other in a circle: {' -> '.join(file.name for file in circle)}.")
    content = _content(path)
    base = content.pop(EXTENDS, None)
    sections = {*Names.of(model, content).sections}
    own = Given(content, {dotted: str(path) for dotted in _dotted(content, sections)}, str(path))
    if base is None:
        return own
    if not isinstance(base, str):
        raise UserError(f"{path}: {EXTENDS} must be the name or the file of one recipe.")
    below = _read(find_recipe(base, path), model, (*above, path.resolve()))
    return own.over(below, sections)


def _content(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder without the settings of a run (config.json): name a recipe's .yaml file, or a run."
        )
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else parsed(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {path} cannot be read as text ({error}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"Recipe {path} is not valid YAML: {yaml_problem(error)}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"Recipe {path} is not valid JSON: {why(error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} must be a mapping of sections and fields.")
    return _placed(content, path.parent) if is_run(path.parent) and path.name == "config.json" else content


def _placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A run's config, with its present folder."""
    folder, run = folder.absolute(), config["run"]
    return config | {"run": run | {"folder": str(folder.parent), "name": folder.name} if isinstance(run, dict) else run}


def _merged(base: dict[str, Any], own: dict[str, Any], sections: set[str], prefix: str) -> dict[str, Any]:
    merged = dict(base)
    for name, value in own.items():
        below, dotted = base.get(name), f"{prefix}{name}"
        if dotted in sections and isinstance(value, dict) and isinstance(below, dict):
            value = _merged(below, value, sections, f"{dotted}.")
        merged[name] = value
    return merged


def _dotted(content: dict[Any, Any], sections: set[str], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        dotted = f"{prefix}{name}"
        yield dotted
        if dotted in sections and isinstance(value, dict):  # other mappings may hold themselves, by an alias
            yield from _dotted(value, sections, f"{dotted}.")
