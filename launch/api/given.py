"""Turns what a Python program gives (rows, functions, settings) into a recipe's file and those that it names.

Files are named after their content: the same things given again are the same recipe, so that a run can go on.
"""

import base64
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from openrs_ray.common.files import write_json
from openrs_ray.common.foreign import why
from openrs_ray.errors import UserError

Reward = Callable[..., Any]
_SOURCE = '''"""Functions given to openrs.train as objects."""

import base64

import cloudpickle

given = cloudpickle.loads(base64.b64decode("{pickled}"))
{name} = given
'''


def recipe_file(recipe: str | Path | Mapping[str, Any], sections: Mapping[str, Any], folder: Path) -> Path:
    """The recipe with these sections over it, as a file.

    Args:
        recipe: its name or file, or all of its content.
        sections: `data` may be rows; a weight in `rewards` may be a function, or a function and its weight.
    """
    below: dict[str, Any] = dict(recipe) if isinstance(recipe, Mapping) else {"extends": _place(recipe)}
    own = {name: _plain(value) for name, value in sections.items() if value is not None}
    if (data := own.get("data")) is not None and not _is_section(data):
        own["data"] = {**(below.get("data") or {}), "path": str(rows_file(data, folder))}
    if (rewards := own.get("rewards")) is not None:
        own["rewards"] = _rewards(rewards, folder)
    merged = {name: _over(below.get(name), value) for name, value in own.items()}
    text = _text(below | merged)
    file = folder / f"recipe-{_digest(text.encode())}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, json.loads(text))
    return file


def _text(recipe: Mapping[str, Any]) -> str:
    try:
        return json.dumps(recipe, default=_unknown, sort_keys=True)
    except (TypeError, ValueError) as error:
        name = next((name for name, value in recipe.items() if not _is_json(value)), "the recipe")
        raise UserError(
            f"{name} cannot be written as JSON: {error}; a function is given as {{name: function}} or {{name: (function, "
            "weight)} in rewards, a class as FILE.py:NAME"
        ) from error


def _is_json(value: Any, **options: Any) -> bool:
    try:
        json.dumps(value, default=_unknown, **options)
    except (TypeError, ValueError):
        return False
    return True


def rows_file(rows: Any, folder: Path) -> Path:
    """Rows as JSON lines. UserError where a cell has no place in JSON.

    Args:
        rows: mappings, or a table of pandas, pyarrow or datasets.
    """
    lines = [_line(row, number) for number, row in enumerate(_rows(rows), start=1)]
    if not lines:
        raise UserError("data has no rows: give at least one, such as {'problem': '1 + 1', 'answer': '2'}")
    text = "".join(f"{line}\n" for line in lines).encode()
    return _written(folder / f"data-{_digest(text)}.jsonl", text)


def function_file(name: str, function: Reward, folder: Path) -> str:
    """A function as FILE.py:NAME: in its own file where that can be read alone, else pickled. UserError where it cannot be."""
    if not name.isidentifier():
        raise UserError(
            f"the reward {name!r} is given as a function, so its name must be one of Python's, such as mine"
        )
    module = _loose_module(function)
    if module is not None and function.__name__ == name:
        return f"{os.path.abspath(str(module.__file__))}:{name}"
    try:
        pickled = _pickled(function, module)
    except Exception as error:  # whatever its globals and closure raise
        raise UserError(
            f"the reward {name} cannot be sent to other processes ({why(error)}): put it into a file of its own and give "
            f"my_rewards.py:{name} instead"
        ) from error
    source = _SOURCE.format(pickled=base64.b64encode(pickled).decode(), name=name).encode()
    return f"{_written(folder / f'{name}_{_digest(source)}.py', source)}:{name}"


def _loose_module(function: Reward) -> ModuleType | None:
    """The function's module, where that is a file of the user's own that other machines cannot import.

    None for the main program, notebooks, packages, and functions that are made by others.
    """
    name, module = getattr(function, "__qualname__", ""), sys.modules.get(getattr(function, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or getattr(module, name, None) is not function:
        return None
    file = getattr(module, "__file__", None) or ""
    installed = any(Path(file).is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))
    return None if installed or module.__package__ or not file.endswith(".py") else module


def _pickled(function: Reward, module: ModuleType | None) -> bytes:
    """With its code, where `module` is what other machines lack."""
    if module is None:
        return cloudpickle.dumps(function)  # type: ignore[no-any-return]
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(function)  # type: ignore[no-any-return]
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _rewards(given: Any, folder: Path) -> dict[str, Any]:
    """The section, or its weights alone."""
    section = dict(given) if isinstance(given, Mapping) else {"weights": given}
    if "weights" not in section:
        section = {"weights": section}
    weights = section["weights"]
    if not isinstance(weights, Mapping):
        raise UserError(f"rewards are a mapping of names to weights or functions, not {type(weights).__name__}")
    return section | {"weights": dict(_weight(name, value, folder) for name, value in weights.items())}


def _weight(name: str, value: Any, folder: Path) -> tuple[str, Any]:
    function, weight = value if isinstance(value, tuple) and len(value) == 2 else (value, 1.0)
    return (function_file(name, function, folder), weight) if callable(function) else (name, value)


def _is_section(data: Any) -> bool:
    """True for what a recipe says of data: a section, or a list of sections."""
    several = data if isinstance(data, list) else [data]
    return bool(several) and all(isinstance(one, Mapping) and "path" in one for one in several)


def _rows(rows: Any) -> Iterable[Any]:
    if hasattr(rows, "to_pylist"):  # pyarrow
        return rows.to_pylist()  # type: ignore[no-any-return]
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas: its NaN is a missing value
        import pyarrow

        return pyarrow.Table.from_pandas(rows, preserve_index=False).to_pylist()  # type: ignore[no-any-return]
    if isinstance(rows, str | Path | Mapping) or not isinstance(rows, Iterable):
        raise UserError(f"data is a list of rows, a table, or a section with path, not {type(rows).__name__}")
    return rows


def _line(row: Any, number: int) -> str:
    if not isinstance(row, Mapping):
        raise UserError(f"row {number} of data is {type(row).__name__}, not a mapping of columns to values")
    try:
        return json.dumps(row, default=_unknown, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        column = next((name for name, value in row.items() if not _is_json(value, allow_nan=False)), None)
        if column is not None and _is_json(row[column]):
            raise UserError(
                f"row {number} of data cannot be written as JSON: NaN or infinity in column {column!r}; give None for a missing "
                "value, or leave the row out"
            ) from error
        where = "" if column is None else f" (column {column!r})"
        raise UserError(f"row {number} of data cannot be written as JSON: {error}{where}") from error


def _unknown(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is neither text, number, list nor mapping")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _over(below: Any, own: Any) -> Any:
    return {**below, **own} if isinstance(below, Mapping) and isinstance(own, Mapping) else own


def _place(recipe: str | Path) -> str:
    """A file from wherever the recipe that extends it lies; a name stays one."""
    path = Path(recipe).expanduser()
    return str(path.absolute()) if path.exists() or len(path.parts) > 1 else str(recipe)


def _written(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        new = file.with_name(f"{file.name}.tmp")
        new.write_bytes(content)
        new.rename(file)
    return file


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
