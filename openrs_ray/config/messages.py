"""Sentences about mistakes in a config: the dotted field, the value's origin, the fault and the allowed values."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from openrs_ray.common.formatting import as_json, shortened
from openrs_ray.config.fields import Names, describe
from openrs_ray.config.peer_names import not_offered, our_name
from openrs_ray.errors import UserError

_ALIKE = 0.65
"""Similarity of a typo (`csv` and `cvs`; not `hours` and `bogus`)."""
_MOST_LINES = 50
_DEEPEST = 4
_NAME = re.compile(r"[\w.\[\]-]+")
_ENTRY = re.compile(r"\[\d+\]")
COMMAND_LINE = "--"


@dataclass
class Origins:
    """Origin of each value by dotted name: a file, or COMMAND_LINE."""

    default: str
    of: dict[str, str] = field(default_factory=dict)

    def set_on_command_line(self, dotted: str) -> None:
        self.of = {name: origin for name, origin in self.of.items() if not name.startswith(f"{dotted}.")}
        self.of[dotted] = COMMAND_LINE

    def says(self, dotted: str, message: str) -> str:
        """The message about a field, after its file or its dashes."""
        given = self._given(dotted)
        origin = self.of.get(given, self.default)
        if origin != COMMAND_LINE:
            return f"{origin}: {message}"
        return f"--{message}" if message.startswith(given) else f"--{given}: {message}"

    def blamed(self, section: str, message: str) -> str:
        """The field that a check of several blames: the first that it names, those of the command line before others."""
        words = re.findall(r"[\w.-]+", message)
        inside = f"{section}." if section else ""
        changed = [
            name for name, origin in self.of.items() if origin == COMMAND_LINE
            and (name in words or (name.startswith(inside) and name.rpartition(".")[2] in words))
        ]  # fmt: skip
        return next(iter(changed), next((word for word in words if word in self.of), section))

    def _given(self, dotted: str) -> str:
        """The field or the section around it that has an origin."""
        while dotted and dotted not in self.of:
            dotted = dotted.rpartition("[" if dotted.endswith("]") else ".")[0]
        return dotted


def mistakes_error(mistakes: Sequence[str]) -> UserError:
    lines = list(dict.fromkeys(f"{' '.join(mistake.splitlines()).rstrip('.')}." for mistake in mistakes))
    if len(lines) == 1:
        return UserError(lines[0])
    left_out = [f"and {len(lines) - _MOST_LINES:,} more."] if len(lines) > _MOST_LINES else []
    return UserError("\n  ".join([f"{len(lines):,} mistakes:", *lines[:_MOST_LINES], *left_out]))


def validation_mistakes(
    error: ValidationError, names: Names, content: dict[str, Any], origins: Origins, unknown: Mapping[str, str | None]
) -> Iterator[str]:
    """`unknown`: the nearest field of each unknown name, which is not reported as missing."""
    errors = error.errors(include_url=False)
    misspelt = {_dotted(each["loc"], content, names): each for each in errors if each["type"] == "extra_forbidden"}
    nearest = dict(unknown)
    entries = [dotted for dotted in (_dotted(each["loc"], content, names) for each in errors) if _ENTRY.search(dotted)]
    for dotted, wrong in misspelt.items():
        sentence, nearest[dotted] = unknown_name(dotted, names, section=isinstance(wrong["input"], dict))
        yield origins.says(dotted, sentence)
    for each in errors:
        dotted = _dotted(each["loc"], content, names)
        if each["type"] == "extra_forbidden" or (each["type"] == "missing" and dotted in nearest.values()):
            continue
        if any(entry.startswith(f"{dotted}[") for entry in entries):  # a list that is wrong in an entry only
            continue
        message = _error_text(each, dotted, names)
        blamed = origins.blamed(dotted, message) if each["type"] == "value_error" else dotted
        # A missing field is nobody's: the recipe as a whole lacks it.
        yield f"{origins.default}: {message}" if each["type"] == "missing" else origins.says(blamed, message)


def unknown_name(dotted: str, names: Names, flags: Sequence[str] = (), section: bool = False) -> tuple[str, str | None]:
    """The sentence about an unknown name, and the field, section or option that was likely meant."""
    known = {**names.fields, **dict.fromkeys(flags)}
    spelt, colon, _ = dotted.partition(":")
    if colon and _NAME.fullmatch(spelt):
        return f"{dotted} is not a field: in YAML a space follows the colon after {spelt}", spelt
    if listed := _in_list(dotted, names):
        return listed
    if reason := not_offered(dotted):
        return f"{dotted} is not offered: {reason}", None
    by_plain_name = {_ENTRY.sub("", name): name for name in reversed(known)}  # the first one's, where data is a list
    if ours := our_name(dotted, by_plain_name):
        return f"{dotted} is not a field; here it is {by_plain_name[ours]}", by_plain_name[ours]
    near = _close(dotted, {name: name for name in names.sections}) if section else None
    near = near or by_plain_name.get(_ENTRY.sub("", dotted)) or _nearest(dotted, list(names.fields), flags)
    kind = "an option" if near in flags else "a field"
    return f"{dotted} is not {kind}; " + (f"the nearest one is {near}" if near else "--help lists all fields"), near


def _in_list(dotted: str, names: Names) -> tuple[str, str | None] | None:
    """Sentence about a name in a list that lacks an entry's number, or in a list without entries, and the name likely meant."""
    parts = dotted.split(".")
    for count in range(1, len(parts)):
        entry, inner = ".".join(parts[:count]), ".".join(parts[count:])
        if f"{entry}[0]" in names.sections:
            number, _, rest = inner.partition(".")
            example = f"{entry}[{number}].{rest}" if number.isdecimal() and rest else f"{entry}[0].{inner}"
            return f"{dotted}: {entry} is a list here, so say which one is meant, such as {example}", example
        if entry in names.fields and describe(names.fields[entry]).startswith("list of section"):
            return f"{dotted} is not a field: {entry} is given as a whole, as a {describe(names.fields[entry])}", None
    return None


def _nearest(dotted: str, fields: Sequence[str], flags: Sequence[str]) -> str | None:
    parent, _, last = dotted.rpartition(".")
    parts = dotted.split(".")[-_DEEPEST:]
    endings = [".".join(parts[first:]) for first in range(len(parts))]
    by_last = {name.rpartition(".")[2]: name for name in reversed(fields)}
    beside = {name.rpartition(".")[2]: name for name in fields if name.rpartition(".")[0] == parent}
    everything = {name: name for name in fields} | {flag.lstrip("-"): flag for flag in flags}
    in_entry = _close(last, beside) if _ENTRY.search(parent) else None
    return (
        in_entry
        or next((ending for ending in endings if ending in fields), by_last.get(last))
        or _close(last, beside)
        or _close(dotted, everything)
        or _close(last, {} if parent else by_last)
    )


def _close(spelt: str, meant: Mapping[str, str]) -> str | None:
    return next((meant[name] for name in difflib.get_close_matches(spelt[:100], meant, n=1, cutoff=_ALIKE)), None)


def _error_text(error: ErrorDetails, dotted: str, names: Names) -> str:
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    field = names.all.get(dotted)
    if error["type"] == "missing":
        return f"{dotted} is missing{_meaning(field)}"
    if error["type"].startswith("union_tag"):
        return f"{dotted}.kind must be one of {error['ctx'].get('expected_tags', 'those that --help lists')}"
    if error["type"] == "value_error":  # our own cross-checks name their fields themselves
        entry = re.match(r"\w+\[\d+\]", dotted)
        return f"{entry[0]}: {message}" if entry else message
    allowed = describe(field) if field else message.removeprefix("Input should be ").partition(", unable to parse")[0]
    if error["type"] == "string_pattern_mismatch":
        allowed = "letters, digits, dots, dashes and underscores, a letter or digit first"
    if error["type"] == "string_unicode":
        allowed += " without NUL and lone surrogates"
    value = " ".join(as_json(error["input"]).split())
    return f"{dotted} is {shortened(value, 60)}; allowed: {allowed}"


def _dotted(location: tuple[int | str, ...], content: Any, names: Names) -> str:
    """pydantic's location without "[key]", kinds of sections and branches of unions."""
    parts: list[str] = []
    for number, part in enumerate(location, start=1):
        if (
            isinstance(content, list | tuple)
            and isinstance(part, int)
            and f"{'.'.join(parts)}[{part}]" in names.sections
        ):
            parts[-1] += f"[{part}]"
            content = content[part]
            continue
        inside = isinstance(content, dict) and part not in content and number < len(location)
        if part != "[key]" and not inside:
            parts.append(str(part))
            content = content.get(part) if isinstance(content, dict) else None
        if ".".join(parts) in names.fields and content is not None and not isinstance(content, dict | list | tuple):
            break  # a plain value: what follows is a branch of its type
    return ".".join(parts)


def _meaning(field: FieldInfo | None) -> str:
    if field is None:
        return ""
    sentence = f" ({field.description.strip().rstrip('.')})" if field.description else ""
    return f"; give {describe(field)}{sentence}"
