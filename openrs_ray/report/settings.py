"""Settings of a run: all of them, and those that differ from its recipe."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openrs_ray.common.files import read_json
from openrs_ray.common.redaction import hide_secrets
from openrs_ray.config.load import flat, load_config
from openrs_ray.config.names import CONFIG, find_recipe, is_run
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.run.environment import FILE as ENVIRONMENT
from openrs_ray.run.log import FOLDER as ATTEMPTS

_PLACE = ("run.name", "run.folder")
"""Settings that every run has of its own."""
_NOTHING = "-"


def texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name, as JSON; of an older run with what is now the default. Example: {"run.steps": "50"}"""
    try:
        values = flat(RunConfig.model_validate(config)) if config else {}
    except (ValidationError, UserError):
        values = flat(dict(config))
    return {
        name: hide_secrets(value if isinstance(value, str) else json.dumps(value)) for name, value in values.items()
    }


def settings(run: Path) -> dict[str, Any]:
    """All settings, the recipe's name, and rows of (name, recipe's value, run's value) where they differ.

    The rows are None where the recipe is not known any more; `note` says why.
    """
    config = texts(read_json(run / CONFIG) or {})
    name, recipe = _recipe(run)
    if recipe is None:
        why = f"the recipe {name} is not here any more" if name else "nothing says which recipe this run began with"
        return {"all": config, "recipe": name, "changed": None, "note": why}
    try:
        theirs = texts(load_config(recipe, []).model_dump(mode="json"))
    except UserError as error:
        return {"all": config, "recipe": name, "changed": None, "note": str(error)}
    changed = [row for row in differences([theirs, config]) if row[0] not in _PLACE]
    return {"all": config, "recipe": name, "changed": changed, "note": ""}


def differences(configs: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Rows of a name and each config's value, where these are not all the same."""
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [[name, *(config.get(name, _NOTHING) for config in configs)] for name in names]
    return [row for row in rows if len({*row[1:]}) > 1]


def compared(configs: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Settings in which several runs differ, besides their names and folders."""
    return [row for row in differences(configs) if row[0] not in _PLACE]


def _recipe(run: Path) -> tuple[str | None, Path | None]:
    """Name of the recipe that the first attempt was given, and its file if it is still there."""
    first = min((run / ATTEMPTS).glob(f"*/{ENVIRONMENT}"), default=None)
    environment = (read_json(first) if first else None) or {}
    given = recipe_given(str(environment.get("command", "")))
    if given is None:
        return None, None
    name = Path(given).stem
    for meant in (Path(str(environment.get("folder", ""))) / given, given, name):
        try:
            found = find_recipe(meant)
        except UserError:
            continue
        if not is_run(found.parent):
            return name, found
    return name, None


def recipe_given(command: str) -> str | None:
    """The recipe in a command line. Example: recipe_given("python -m launch.train quickstart --resume") == "quickstart" """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    for place, word in enumerate(words):
        if word == "train" or re.fullmatch(r"launch\.train|(.*/)?train\.py", word):
            return _first_plain(words[place + 1 :])
    return None


def _first_plain(words: Sequence[str]) -> str | None:
    flags = ("--dry-run", "--resume", "--restart", "--page")
    taken = False
    for word in words:
        if not word.startswith("--") and not taken:
            return word
        taken = word.startswith("--") and "=" not in word and word not in flags
    return None


@cache
def _expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
    return content


def expected_bands(recipe: str | None) -> dict[str, Any]:
    """Where a recipe's curves are known to run: {curve: {"points": [[step, low, high], ...], "source": ...}}."""
    return dict(_expected().get(recipe or "", {}))
