"""Changes fields of a config by a command line: `--dotted.field VALUE` or `--dotted.field=VALUE`."""

import re
import types
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from openrs_ray.config.fields import Names, describe, plain_types
from openrs_ray.config.messages import unknown_name
from openrs_ray.config.yaml_text import parsed, yaml_problem
from openrs_ray.errors import UserError


class Unknown(UserError):
    def __init__(self, dotted: str, names: Names, flags: Sequence[str]) -> None:
        sentence, self.nearest = unknown_name(dotted, names, flags)
        self.dotted = dotted
        super().__init__(f"--{sentence}")


def change(
    content: dict[str, Any], words: Sequence[str], model: type[BaseModel], flags: Sequence[str]
) -> Iterator[str | UserError]:
    """Set fields in `content`; yields the dotted name of each, or its error.

    VALUE is YAML; for a text field, plain text. `flags`: the command's other options, for misspelt names.
    """
    for word, text in _pairs(words):
        if not word.startswith("--") or len(word) == 2:
            yield UserError(f"{word!r} was not expected here: change fields with --dotted.field VALUE")
            continue
        try:
            _set(content, word[2:], text, Names.of(model, content, inside=True), flags)
            yield word[2:]
        except UserError as error:
            yield error


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each field with its value or None; any other word by itself."""
    left = deque(words)
    while left:
        word = left.popleft()
        name, equals, text = word.partition("=")
        if not word.startswith("--"):
            yield word, None
        elif equals:
            yield name, text
        else:
            yield name, left.popleft() if left and not left[0].startswith("--") else None


def _set(content: dict[str, Any], dotted: str, text: str | None, names: Names, flags: Sequence[str]) -> None:
    field, key = _resolve(dotted, names, flags)
    if text is None:
        raise UserError(f"--{dotted} needs a value: {describe(field)}")
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
        if entry := re.fullmatch(r"(\w+)\[(\d+)\]", name):
            content = content[entry[1]][int(entry[2])]
            continue
        inner = content.get(name)
        if not isinstance(inner, dict):
            inner = content[name] = {}
        content = inner
    return content


def _resolve(dotted: str, names: Names, flags: Sequence[str]) -> tuple[FieldInfo, str | None]:
    """The field and, for an entry of a mapping, its key."""
    known = names.all
    if dotted in known:
        return known[dotted], None
    parent, _, key = dotted.rpartition(".")
    if parent in known and get_origin(known[parent].annotation) is dict:
        return known[parent], key
    raise Unknown(dotted, names, flags)


def _value(field: FieldInfo, dotted: str, text: str) -> Any:
    kinds = plain_types(field.annotation)
    if kinds - {types.NoneType} <= {str, Path} and text[:1] not in ("'", '"'):
        # Text as it stands, or "####" would be a comment, "7" a number and "Answer: x" a mapping.
        return None if types.NoneType in kinds and text in ("null", "~") else text
    try:
        return parsed(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{dotted} {text} is not valid YAML: {yaml_problem(error)}") from error
