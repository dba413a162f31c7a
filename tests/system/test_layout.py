"""The house stands: imports run one way and in no circle, rooms are few, and each test file lies where its subject does."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from places import ROOT

FLOORS = ("launch", "actors", "openrs_ray")
"""Imports run from left to right, never back."""
TOPICS = {
    "unit/actors/loop/test_overlap_rate.py",  # lookahead with engines and learner, by the clock
    "unit/actors/loop/test_replacing.py",  # the loop, lookahead and batch
    "unit/openrs_ray/rewards/test_formulas.py",  # every reward, each in a file of its own
}
"""Unit tests of several modules of their folder."""
TESTS = ROOT / "tests"
Imports = dict[str, frozenset[str]]


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    files = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sorted(files)
    }


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else node.module for name in below}
    return names


def room(module: str) -> str:
    """The folder below a floor that a module lies in; a module beside the folders is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 or modules()[module].name == "__init__.py" else module


@cache
def doors() -> Imports:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in modules().items():
        found[room(module)] |= {room(name) for name in imported(path) if name in modules()} - {room(module)}
    return {name: frozenset(others) for name, others in found.items()}


def circles(imports: Imports) -> set[frozenset[str]]:
    """Groups of rooms that reach each other."""

    @cache
    def reached(start: str) -> frozenset[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            left += (new := imports.get(left.pop(), frozenset()) - seen)
            seen |= new
        return frozenset(seen)

    groups = {frozenset(other for other in reached(name) if name in reached(other)) for name in imports}
    return {group for group in groups if len(group) > 1}


def height(name: str, imports: Imports) -> int:
    """Floors from a room down to the lowest that it rests on, itself included; circles count as one floor."""
    below = [other for other in imports[name] if other in imports and name not in imports[other]]
    return 1 + max((height(other, imports) for other in below), default=0)


def test_a_circle_is_seen() -> None:
    straight = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset[str]()}
    assert circles(straight) == set() and height("a", straight) == 3
    assert circles(straight | {"c": frozenset("a")}) == {frozenset("abc")}


@pytest.mark.parametrize("module", modules())
def test_imports_run_from_launch_to_actors_to_the_library(module: str) -> None:
    allowed = FLOORS[FLOORS.index(module.partition(".")[0]) :]
    assert {name.partition(".")[0] for name in imported(modules()[module])} & {*FLOORS, "tests"} <= {*allowed}


def test_the_library_knows_nothing_of_ray() -> None:
    known = [name for name in modules() if name.startswith("openrs_ray.")]
    assert not [name for name in known if {each.partition(".")[0] for each in imported(modules()[name])} & {"ray"}]


def test_no_folder_imports_another_in_a_circle() -> None:
    assert circles(doors()) == set()


def test_actors_have_at_most_eight_rooms_on_three_floors() -> None:
    rooms = {name for name in doors() if name.startswith("actors.")}
    inside = {name: frozenset(others & rooms) for name, others in doors().items() if name in rooms}
    assert len(rooms) <= 8
    assert {name: height(name, inside) for name in rooms if height(name, inside) > 3} == {}


def files() -> list[Path]:
    return sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


def test_every_test_lies_in_one_of_four_folders() -> None:
    assert all((TESTS / path).exists() for path in TOPICS)
    assert {path.parts[0] for path in files()} <= {"unit", "system", "chaos", "gpu"}


@pytest.mark.parametrize("path", [path for path in files() if path.parts[0] == "unit"], ids=str)
def test_a_unit_test_is_named_after_what_lies_in_the_mirrored_folder(path: Path) -> None:
    """A module, the folder itself or one in it, and perhaps an aspect of that: `test_rows.py`, `test_rows_formats.py`."""
    folder, name = ROOT / path.parent.relative_to("unit"), path.stem.removeprefix("test_")
    known = {folder.name} | {each.stem for each in folder.iterdir() if each.is_dir() or each.suffix == ".py"}
    assert str(path) in TOPICS or any(name == each or name.startswith(f"{each}_") for each in known)


@pytest.mark.parametrize("path", files(), ids=str)
def test_no_test_imports_another(path: Path) -> None:
    others = {each.stem for each in files()} | {"conftest"}
    assert not {name.rpartition(".")[2] for name in imported(TESTS / path)} & others
