"""From a recipe and the command line to a checked RunConfig (or another config), and back to text a person reads.

Every mistake becomes one UserError sentence that names the dotted field, what is wrong and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import re
import textwrap
import types
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from openrs_ray.config import RunConfig
from openrs_ray.errors import UserError, as_shown, first_line
from openrs_ray.resumable import fixed_fields

_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


Config = TypeVar("Config", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types, so that 1e-6 is a number and both `no` and a date are text; no duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def load_config(recipe: Path, overrides: list[str]) -> RunConfig:
    """Read a YAML recipe, apply `--dotted.field VALUE` or `--dotted.field=VALUE` in order, and check everything.

    VALUE is YAML (lists and mappings too); for a text field it is taken as it stands. UserError for any mistake.
    """
    return config_from(read_recipe(recipe), overrides, str(recipe))


def config_from(content: dict[str, Any], overrides: list[str], origin: str) -> RunConfig:
    """The same for the content of a recipe that is no file; `origin` says in messages where it comes from."""
    return checked(RunConfig, content, overrides, origin)


def checked(model: type[Config], content: dict[str, Any], overrides: list[str], origin: str) -> Config:
    """The same for a config of any kind."""
    for dotted, text in _split_overrides(overrides, model, content):
        _set(content, dotted, text, _Names.of(model, content))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{origin}: {_first_error(error, _Names.of(model, content), content)}") from error


def flat(config: BaseModel | dict[str, Any], model: type[BaseModel] = RunConfig) -> dict[str, Any]:
    """JSON values of all fields by dotted name, of a config or of what one of kind `model` would be read from.

    Mappings such as `rewards.weights` are one value.
    """
    if isinstance(config, BaseModel):
        return _flat(config.model_dump(mode="json"), {*_Names.of(type(config), {}).sections}, "")
    return _flat(config, {*_Names.of(model, {}).sections}, "")


def _flat(content: dict[str, Any], sections: set[str], prefix: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        dotted = f"{prefix}{name}"
        if dotted in sections and isinstance(value, dict):
            values |= _flat(value, sections, f"{dotted}.")
        else:
            values[dotted] = value
    return values


def help_text(width: int = 100) -> str:
    """Every dotted field with its type, default and sentence, by section; no line is longer than `width`."""
    lines = [
        "python -m launch.train RECIPE [--dotted.field VALUE ...] [--dry-run] [--resume] [--restart]",
        "",
        "--dry-run  Say what the run would do and need, and start nothing.",
        "--resume   Go on with the run from its last checkpoint, or begin it.",
        "--restart  Start the run again from its last checkpoint whenever its process dies or it breaks.",
        "",
        *textwrap.wrap("VALUE is written as in YAML: 2e-6, true, null, [a, b], {accuracy: 2.0}.", width),
        *textwrap.wrap("A field marked [fixed] keeps its value when a run is resumed; the others may change.", width),
        *field_lines(RunConfig, {}, width, {*fixed_fields(RunConfig)}),
    ]
    return "\n".join(lines) + "\n"


def field_lines(
    model: type[BaseModel], content: dict[str, Any], width: int = 100, fixed: Container[str] = ()
) -> list[str]:
    """The part of a help text about the fields, with those `fixed` marked.

    Mappings of sections have the entries that `content` gives them.
    """
    lines: list[str] = []
    section = ""
    for dotted, field in _Names.of(model, content).fields.items():
        if dotted.split(".")[0] != section:
            section = dotted.split(".")[0]
            lines += ["", f"{section}:"]
        kind = f"({_describe(field)}{_default(field)})"
        lines += textwrap.wrap(f"--{dotted}  {kind}", width, initial_indent="  ", subsequent_indent="      ")
        sentence = " ".join([*(field.description or "").split(), *(["[fixed]"] if dotted in fixed else [])])
        lines += textwrap.wrap(sentence, width, initial_indent="      ", subsequent_indent="      ")
    return lines


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return json.loads(json.dumps(value, default=str))


# Reading


def read_recipe(recipe: Path) -> dict[str, Any]:
    """The content of a YAML recipe, unchecked. UserError where it cannot be read."""
    try:
        content = _parsed(recipe.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        nearby = sorted(path.name for path in recipe.parent.glob("*.yaml")) if recipe.parent.is_dir() else []
        there = f"; {recipe.parent} has {', '.join(nearby)}" if nearby else ""
        raise UserError(f"There is no recipe {recipe}{there}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {recipe} cannot be read as text ({error}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"Recipe {recipe} is not valid YAML: {_yaml_problem(error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {recipe} must be a mapping of sections and fields.")
    return content


def _parsed(text: str) -> Any:
    """What a YAML text says. yaml.YAMLError for all that is wrong with it."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(first_line(error).partition(":")[0]) from error


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}, {error.problem}"
    return " ".join(str(error).split())


def _split_overrides(
    overrides: list[str], model: type[BaseModel], content: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    words = iter(overrides)
    for word in words:
        if not word.startswith("--") or len(word) == 2:
            raise UserError(f"{word} was not expected here: change fields with --dotted.field VALUE.")
        dotted, equals, text = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                _resolve(dotted, _Names.of(model, content))  # a misspelt field is the likelier mistake: say that first
                raise UserError(f"--{dotted} needs a value: --{dotted} VALUE.")
            text = following
        yield dotted, text


def _set(content: dict[str, Any], dotted: str, text: str, names: _Names) -> None:
    field, key = _resolve(dotted, names)
    value = _value(field, dotted, text)
    *parents, name = dotted.split(".")
    if key is not None:  # an entry of a mapping: keep the recipe's others, or the default's
        content = _section(content, parents[:-1])
        entries = content.setdefault(parents[-1], field.get_default())
        content[parents[-1]] = (dict(entries) if isinstance(entries, dict) else {}) | {key: value}
    else:
        _section(content, parents)[name] = value


def _section(content: dict[str, Any], names: list[str]) -> dict[str, Any]:
    for name in names:
        inner = content.get(name)
        if not isinstance(inner, dict):
            inner = content[name] = {}
        content = inner
    return content


def _resolve(dotted: str, names: _Names) -> tuple[FieldInfo, str | None]:
    """The field that a dotted name means and, for an entry of a mapping field, the entry's key."""
    known = names.all
    if dotted in known:
        return known[dotted], None
    parent, _, key = dotted.rpartition(".")
    if parent in known and get_origin(known[parent].annotation) is dict:
        return known[parent], key
    raise UserError(f"--{_unknown(dotted, names)}.")


def _value(field: FieldInfo, dotted: str, text: str) -> Any:
    kinds = _plain_types(field.annotation)
    if kinds - {types.NoneType} <= {str, Path} and text[:1] not in ("'", '"'):
        # Text as it stands, or "####" would be a comment, "7" a number and "Answer: x" a mapping.
        return None if types.NoneType in kinds and text in ("null", "~") else text
    try:
        return _parsed(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{dotted} {text} is not valid YAML: {_yaml_problem(error)}.") from error


# The fields of a config


@dataclass(frozen=True)
class _Names:
    """Every dotted name of a config, in order."""

    sections: dict[str, FieldInfo]
    fields: dict[str, FieldInfo]

    @classmethod
    def of(cls, model: type[BaseModel], content: Any) -> _Names:
        """A mapping of sections has the entries that `content` gives it."""
        walked = list(_walk(model, content, ""))
        return cls(
            {dotted: field for dotted, field, is_section in walked if is_section},
            {dotted: field for dotted, field, is_section in walked if not is_section},
        )

    @property
    def all(self) -> dict[str, FieldInfo]:
        return self.sections | self.fields


def _walk(model: type[BaseModel], content: Any, prefix: str) -> Iterator[tuple[str, FieldInfo, bool]]:
    for name, field in model.model_fields.items():
        dotted, inside = f"{prefix}{name}", content.get(name) if isinstance(content, dict) else None
        kind = field.annotation
        if _is_section(kind):
            yield dotted, field, True
            yield from _walk(kind, inside, f"{dotted}.")
        elif entries := _entry_sections(kind):
            yield dotted, field, True
            for key, value in inside.items() if isinstance(inside, dict) else ():
                yield f"{dotted}.{key}", field, True
                yield from _walk(_meant(entries, value), value, f"{dotted}.{key}.")
        else:
            yield dotted, field, False


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _entry_sections(kind: Any) -> list[type[BaseModel]]:
    """The kinds of section that a mapping's values may be; none where they are plain."""
    values = _plain_types(get_args(kind)[1]) if get_origin(kind) is dict else ()
    return [value for value in values if _is_section(value)]


def _meant(kinds: list[type[BaseModel]], value: Any) -> type[BaseModel]:
    """The one whose field `kind` is the value's; any one where none is."""
    given = value.get("kind") if isinstance(value, dict) else None
    return next((k for k in kinds if "kind" in k.model_fields and k.model_fields["kind"].default == given), kinds[0])


def _plain_types(annotation: Any) -> set[Any]:
    if get_origin(annotation) is Annotated:
        return _plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*(_plain_types(part) for part in get_args(annotation)))
    return {annotation}


def _describe(field: FieldInfo) -> str:
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
    if origin is dict:
        filled = any(isinstance(bound, annotated_types.MinLen) for bound in bounds)
        names, values = _type_text(parts[0], []), _type_text(parts[1], [])
        return f"{'mapping, not empty,' if filled else 'mapping'} of {names} to {values}"
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"list of {_type_text(parts[0], [])}"
        return f"{len(parts)} x {_type_text(parts[0], [])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section with " + ", ".join(annotation.model_fields)
    name = _TYPE_NAMES[annotation]
    limits = " and ".join(filter(None, map(_bound_text, bounds)))
    return f"{name} {limits}" if limits else name


def _bound_text(bound: Any) -> str:
    match bound:
        case annotated_types.Gt(gt=limit):
            return f"> {limit:,}"
        case annotated_types.Ge(ge=limit):
            return f">= {limit:,}"
        case annotated_types.Lt(lt=limit):
            return f"< {limit:,}"
        case annotated_types.Le(le=limit):
            return f"<= {limit:,}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ", required"
    return f", default {json.dumps(_as_json(field.get_default()))}"


# Mistakes


def _first_error(error: ValidationError, names: _Names, content: dict[str, Any]) -> str:
    # A misspelt field first: where it leaves a required one missing, it is the cause.
    errors = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{_error_text(errors[0], names, content).rstrip('.')}{more}."


def _error_text(error: ErrorDetails, names: _Names, content: dict[str, Any]) -> str:
    dotted = _dotted(error["loc"], content)
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    field = names.all.get(dotted)
    if error["type"] == "extra_forbidden":
        return _unknown(dotted, names)
    if error["type"] == "missing":
        return f"{dotted} is missing{_meaning(field)}"
    if error["type"].startswith("union_tag"):
        return f"{dotted}.kind must be one of {error['ctx'].get('expected_tags', 'those that --help lists')}"
    if error["type"] == "value_error":  # our own cross-checks name their fields themselves
        return message
    allowed = _describe(field) if field else message.removeprefix("Input should be ")
    if error["type"] == "string_pattern_mismatch":
        allowed = "letters, digits, dots, dashes and underscores, a letter or digit first"
    if error["type"] == "string_unicode":
        allowed += " without NUL and lone surrogates"
    value = " ".join(as_shown(error["input"]).split())
    return f"{dotted} is {value if len(value) <= 60 else value[:57] + '...'}; allowed: {allowed}"


def _dotted(location: tuple[int | str, ...], content: Any) -> str:
    """The field's name: pydantic's location without "[key]" and without the kind of a section that may be of several."""
    parts: list[str] = []
    for number, part in enumerate(location, start=1):
        inside = isinstance(content, dict) and part not in content and number < len(location)
        if part != "[key]" and not inside:
            parts.append(str(part))
            content = content.get(part) if isinstance(content, dict) else None
    return ".".join(parts)


def _meaning(field: FieldInfo | None) -> str:
    if field is None:
        return ""
    sentence = f" ({field.description.strip().rstrip('.')})" if field.description else ""
    return f"; give {_describe(field)}{sentence}"


def _unknown(dotted: str, known: _Names) -> str:
    names = list(known.all)
    parent, _, last = dotted.rpartition(".")
    same_section = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == parent}
    same_name = [name for name in names if name.rpartition(".")[2] == last]
    near = (
        same_name[:1]
        or [same_section[name] for name in difflib.get_close_matches(last, same_section, n=1)]
        or difflib.get_close_matches(dotted, names, n=1)
    )
    return f"{dotted} is not a field; " + (f"the nearest one is {near[0]}" if near else "--help lists all fields")
