"""Finds a recipe or a run by name or path; answers a typo with the existing names."""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from openrs_ray.common.foreign import reading
from openrs_ray.errors import UserError

RECIPES = Path(__file__).resolve().parents[2] / "launch" / "recipes"
CONFIG = "config.json"
"""Marks a run's folder."""
CODE = "code"
"""A run's copies of the user's own files."""

Kind = Literal["run", "data"]
"""A recipe makes a run (`launch.train`) or a data set (`launch.curate`)."""

_KINDS: tuple[Kind, ...] = ("run", "data")
_SHOWN = 20
_MOST_CHARACTERS = 100_000


def runs_folder() -> Path:
    return Path(os.environ.get("OPENRS_RUNS", "~/openrs_runs")).expanduser()


def find_recipe(given: str | Path, beside: Path | None = None) -> Path:
    """The file of a recipe, or the config.json of a run. UserError names the others, nearest first.

    Args:
        given: a file, the name of a recipe of the project, or a run (folder or name).
        beside: the recipe that extends it; files are looked for in its folder.
    """
    path = _path(given)
    with reading(f"cannot look for recipe {given}"):
        for found in _meant(path, beside):
            if found.exists() and not (beside and found.resolve() == beside.resolve()):
                return found / CONFIG if is_run(found) else found
        raise UserError(_no_recipe(path, beside))


def _meant(path: Path, beside: Path | None) -> Iterator[Path]:
    """First choice first."""
    as_it_stands = (beside.parent if beside else Path()) / path
    with_ending = Path(f"{as_it_stands}.yaml")
    if as_it_stands.is_file() or is_run(as_it_stands):
        yield as_it_stands
    if beside:
        yield with_ending
    if len(path.parts) == 1:
        yield RECIPES / f"{path.name.removesuffix('.yaml')}.yaml"
    yield with_ending
    if len(path.parts) == 1 and is_run(runs_folder() / path):
        yield runs_folder() / path
    yield as_it_stands  # a folder that is no run: reading it says so


def find_run(given: str | Path) -> Path:
    """A run's folder. UserError names others, nearest first."""
    path = _path(given)
    meant = [path, runs_folder() / path]
    with reading(f"cannot look for run {given}"):
        found = next(filter(is_run, meant), None) or next(filter(Path.is_dir, meant), None)
        if found is None:
            raise UserError(f"there is no run {given}: {runs_text(path.name, runs_folder())}")
        return found


def _path(given: str | Path) -> Path:
    return Path(os.path.expanduser(given))  # unlike Path's own, it leaves the ~ of a user that there is not


def is_run(folder: Path) -> bool:
    """True for a config.json with the sections of a run, unlike a model's."""
    try:
        content: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"run", "rollout", "data"} <= content.keys()


def runs_text(nearest_to: str, folder: Path) -> str:
    """The runs in a folder, as the end of a sentence."""
    names = [path.name for path in folder.iterdir() if is_run(path)] if folder.is_dir() else []
    return f"{folder} has {_listed(names, nearest_to)}" if names else f"{folder} has none"


def recipes(kind: Kind, folder: Path = RECIPES) -> dict[str, str]:
    """Recipes by name, with their first comment."""
    texts = {path.stem: _beginning(path) for path in sorted(folder.glob("*.yaml")) if path.is_file()}
    return {name: _first_comment(text) for name, text in texts.items() if _kind(text) == kind}


def recipe_lines(kind: Kind) -> list[str]:
    known = recipes(kind)
    wide = max(map(len, known), default=0)
    return ["", "Recipes, by name:", *(f"  {name:<{wide}}  {sentence}" for name, sentence in known.items())]


def _no_recipe(path: Path, beside: Path | None) -> str:
    if beside and any(each.exists() and each.resolve() == beside.resolve() for each in _meant(path, beside)):
        return f"{beside} extends itself: name another recipe in extends."
    folder = (beside.parent if beside else Path()) / path.parent
    own = [] if folder.resolve() == RECIPES else [f"{name}.yaml" for kind in _KINDS for name in recipes(kind, folder)]
    here = f"; {folder} has {_listed(own, path.name)}" if own else ""
    asked = f", which {beside} extends" if beside else ""
    known = [name for kind in _KINDS for name in recipes(kind)]
    return f"There is no recipe {path}{asked}{here}; by name there are {_listed(known, path.stem)}."


def _listed(names: Iterable[str], nearest_to: str) -> str:
    matcher = difflib.SequenceMatcher(b=nearest_to.lower()[:100])

    def unlike(name: str) -> float:
        matcher.set_seq1(name.lower())
        return -matcher.ratio()

    ordered = sorted(sorted(names), key=unlike)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def _beginning(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MOST_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return ""


def _kind(text: str) -> Kind | None:
    if re.search(r"^(name|sources|stages):", text, re.MULTILINE):
        return "data"
    return "run" if re.search(r"^(run|extends):", text, re.MULTILINE) else None


def _first_comment(text: str) -> str:
    first = text.partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""
