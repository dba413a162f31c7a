"""The calls of reasoning-gym, for processes that can be killed: nothing here is imported by the driver.

Some of its data sets iterate over sets of text, so the same seed gives the same problems only under one PYTHONHASHSEED: the
checking processes set it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning_gym.composite import DatasetSpec
from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum
from reasoning_gym.utils import extract_answer

from openrs_ray.rewards.answers.extraction import last_boxed
from openrs_ray.rewards.libraries.call import Unfit

Row = dict[str, Any]
Level = int | Mapping[str, int]
"""Of all attributes of a curriculum, or of each by its name."""


def rows(name: str, parameters: Mapping[str, Any], level: Level | None, start: int, stop: int) -> list[Row]:
    """Problems [start, stop) of a data set with everything that scoring them needs. Unfit."""
    known = dict(parameters) if level is None else at_level(name, parameters, level)
    made = data_set(name, known)
    return [_row(made[index], name, known) for index in range(start, stop)]


def _row(entry: Row, name: str, parameters: Mapping[str, Any]) -> Row:
    return {"problem": entry["question"], **entry, "dataset": name, "parameters": parameters}


def size(name: str, parameters: Mapping[str, Any], level: Level | None) -> int:
    """Number of problems, once everything about them has been checked. Unfit."""
    return len(data_set(name, dict(parameters) if level is None else at_level(name, parameters, level)))


def score(answer: str | None, row: Mapping[str, Any]) -> float:
    """The library's own judgement, from 0 to 1.

    By the configuration that made the problem; a row of somebody else's file says at least its data set's name.
    """
    name = row.get("dataset") or row["metadata"]["source_dataset"]
    return float(_scorer(name, row.get("parameters", {})).score_answer(answer, row))


def found_answer(text: str) -> str | None:
    r"""Text of the last <answer> tag, as the library asks for it, else of the last \boxed{}."""
    tagged: str | None = extract_answer(text)
    return last_boxed(text) if tagged is None else tagged


def at_level(name: str, parameters: Mapping[str, Any], level: Level) -> dict[str, Any]:
    """Parameters of a level of the library's curriculum. Unfit."""
    _known(name)
    if name not in CURRICULA:
        raise Unfit(f"there is no curriculum for {name}: leave out data.curriculum and set data.parameters")
    curriculum = create_curriculum(name)
    levels = dict.fromkeys(curriculum.attributes, level) if isinstance(level, int) else dict(level)
    if unknown := sorted(levels.keys() - curriculum.attributes.keys()):
        raise Unfit(f"its curriculum has no {', '.join(unknown)}: it has {', '.join(curriculum.attributes)}")
    most = max(len(attribute.levels) for attribute in curriculum.attributes.values()) - 1
    for attribute, value in levels.items():
        last = len(curriculum.attributes[attribute].levels) - 1
        if not 0 <= value <= (most if isinstance(level, int) else last):
            raise Unfit(f"its curriculum has the levels 0 to {last} of {attribute}, and {value} is none of them")
        curriculum.set_attr_level(attribute, min(value, last))
    made = vars(curriculum.generate_configuration())
    default = vars(DATASETS[name][1]())
    own = {
        field: value for field, value in made.items() if field in _level_fields(curriculum) or value != default[field]
    }
    if both := sorted(own.keys() & parameters.keys()):
        raise Unfit(f"the curriculum's level sets {', '.join(both)}: leave that out of data.parameters")
    return {**parameters, **own}


def data_set(name: str, parameters: Mapping[str, Any]) -> Any:
    """Unfit with the reason in one sentence's end."""
    _known(name)
    kind, settings = DATASETS[name]
    fields = {field.name: field for field in dataclasses.fields(settings)}
    if unknown := sorted(parameters.keys() - fields.keys()):
        raise Unfit(f"it has no parameter {', '.join(unknown)}: it has {', '.join(fields)}")
    given = {field: _fitting(value, fields[field]) for field, value in parameters.items()}
    try:
        return kind(config=settings(**given))
    except Exception as error:  # its checks are assertions, and a wrong type raises anything
        raise Unfit(f"its parameters do not fit: {error or type(error).__name__}") from error


def _known(name: str) -> None:
    if name not in DATASETS:
        raise Unfit(f"there is no data set {name!r}: there are {', '.join(sorted(DATASETS))}")


def _level_fields(curriculum: Any) -> set[str]:
    names = ("lower_field_name", "upper_field_name", "field_name")
    attributes = curriculum.attributes.values()
    return {getattr(one, field) for one in attributes for field in names if hasattr(one, field)}


def _fitting(value: Any, field: Any) -> Any:
    """Parameters that a recipe cannot give: dates, nested configurations and the parts of a composite."""
    default = field.default
    if field.name == "datasets" and isinstance(value, Sequence) and all(isinstance(one, Mapping) for one in value):
        return [DatasetSpec(**one) for one in value]
    if isinstance(default, datetime.date | datetime.time) and isinstance(value, str):
        return type(default).fromisoformat(value)
    if dataclasses.is_dataclass(made := _made(field)) and isinstance(value, Mapping):
        return dataclasses.replace(made, **value)  # type: ignore[type-var]
    return value


def _made(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _scorer(name: str, parameters: Mapping[str, Any]) -> Any:
    """One data set of each configuration for the whole life of the process."""
    key = (name, repr(sorted(parameters.items())))
    if key not in _SCORERS:
        _SCORERS[key] = data_set(name, parameters)
    return _SCORERS[key]


_SCORERS: dict[tuple[str, str], Any] = {}
