"""The fields of a config by dotted name, with types, bounds and defaults in words."""

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "value"}
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Names:
    sections: dict[str, FieldInfo]
    fields: dict[str, FieldInfo]

    @classmethod
    def of(cls, model: type[BaseModel], content: Any, entries: bool = False, inside: bool = False) -> "Names":
        """`content` gives mappings and lists of sections their entries; `entries`: with the fields `data[N].name` that a section
        has only in a list; `inside`: with those in lists that are one value otherwise, such as `rollout.stages[0].until.step`."""
        walked = list(_walk(model, content, "", entries, inside))
        return cls(
            {dotted: field for dotted, field, is_section in walked if is_section},
            {dotted: field for dotted, field, is_section in walked if not is_section},
        )

    @property
    def all(self) -> dict[str, FieldInfo]:
        return self.sections | self.fields


def _walk(
    model: type[BaseModel], content: Any, prefix: str, entries: bool = False, inside: bool = False
) -> Iterator[tuple[str, FieldInfo, bool]]:
    for name, field in model.model_fields.items():
        dotted, value = f"{prefix}{name}", content.get(name) if isinstance(content, dict) else None
        section, entry = section_kinds(field.annotation)
        if section is None and inside:
            entry = _listed_section(field.annotation)
        if entry is not None and isinstance(value, list | tuple):
            yield dotted, field, section is not None
            for number, one in enumerate(value):
                yield f"{dotted}[{number}]", FieldInfo.from_annotation(entry), True
                yield from _walk(entry, one, f"{dotted}[{number}].", inside=inside)
        elif section is not None:
            yield dotted, field, True
            yield from _walk(section, value, f"{dotted}.", inside=inside)
            if entries and entry is not None:
                own = entry.model_fields.keys() - section.model_fields.keys()
                yield from ((f"{dotted}[N].{name}", f, False) for name, f in entry.model_fields.items() if name in own)
        elif kinds := _entry_sections(field.annotation):
            yield dotted, field, True
            for key, one in value.items() if isinstance(value, dict) else ():
                yield f"{dotted}.{key}", field, True
                yield from _walk(_meant(kinds, one), one, f"{dotted}.{key}.", inside=inside)
        else:
            yield dotted, field, False


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def section_kinds(annotation: Any) -> tuple[type[BaseModel] | None, type[BaseModel] | None]:
    """The section that a field takes, and that of each entry where it takes a list of them, too."""
    kinds = plain_types(annotation) - {types.NoneType}
    section = next(filter(_is_section, kinds), None)
    entry = _listed_section(annotation)
    alone = len(kinds) == 1 + (entry is not None)
    return (section, entry) if section is not None and alone else (None, None)


def _listed_section(annotation: Any) -> type[BaseModel] | None:
    """Section of each entry of a list of sections; None for any other type."""
    kinds = plain_types(annotation)
    lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis]
    return next(filter(_is_section, lists), None)


def _entry_sections(kind: Any) -> list[type[BaseModel]]:
    values = plain_types(get_args(kind)[1]) if get_origin(kind) is dict else ()
    return [value for value in values if _is_section(value)]


def _meant(kinds: list[type[BaseModel]], value: Any) -> type[BaseModel]:
    """The kind of section by the value's `kind`, else the first."""
    given = value.get("kind") if isinstance(value, dict) else None
    return next((k for k in kinds if "kind" in k.model_fields and k.model_fields["kind"].default == given), kinds[0])


def plain_types(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Annotated:
        return plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*(plain_types(part) for part in get_args(annotation)))
    return {annotation}


def describe(field: FieldInfo) -> str:
    return _type_text(field.annotation, field.metadata)


def _type_text(annotation: Any, bounds: list[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [bound for part in parts[1:] for bound in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _type_text(parts[0], [*inner, *bounds])
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is types.NoneType else _type_text(part, bounds) for part in parts)
    if origin is Literal:
        return " or ".join(str(part) for part in parts)
    filled = any(isinstance(bound, annotated_types.MinLen) for bound in bounds)
    if origin is dict:
        names, values = _type_text(parts[0], []), _type_text(parts[1], [])
        return f"{'mapping, not empty,' if filled else 'mapping'} of {names} to {values}"
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"list of {_type_text(parts[0], [])}"
        return f"{len(parts)} x {_type_text(parts[0], [])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section with " + ", ".join(annotation.model_fields)
    name = f"{'non-empty ' if filled else ''}{_TYPE_NAMES[annotation]}"
    limits = " and ".join(filter(None, map(_bound_text, bounds)))
    return f"{name} {limits}" if limits else name


def _bound_text(bound: Any) -> str:
    return next((f"{sign} {getattr(bound, name):,}" for name, sign in _SIGNS.items() if hasattr(bound, name)), "")


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return ", required"
    return f", default {json.dumps(as_json(field.get_default()))}"


def as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return json.loads(json.dumps(value, default=str))


def top_level(dotted: str) -> str:
    """Example: "data" of "data[1].path" """
    return dotted.partition(".")[0].partition("[")[0]
