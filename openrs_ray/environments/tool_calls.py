"""Finds the tool calls in a model's turn, in the format of its chat template.

The markup is that of public templates, each named at its format. A call that cannot be read is the model's mistake: it becomes a
`Malformed` with a sentence for the model.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from openrs_ray.models.tool_template import CallFormat
from openrs_ray.rewards.answers.extraction import after_reasoning, is_unfinished

_LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Example: ToolCall("calculate", {"expression": "2+2"})"""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Example: Malformed("the arguments are not valid JSON: Expecting ',' delimiter")"""

    reason: str


def tool_calls(text: str, form: CallFormat) -> list[ToolCall | Malformed]:
    """All calls of a turn, in order; what stands in the reasoning is none."""
    if is_unfinished(text):
        return []
    try:
        return list(_READERS[form](after_reasoning(text)))
    except RecursionError:
        return [Malformed("a tool call is nested too deeply")]


def _hermes(text: str) -> Iterator[ToolCall | Malformed]:
    """Hermes 2 Pro, Qwen2.5, Qwen3: <tool_call>{"name": ..., "arguments": {...}}</tool_call>"""
    for found in re.finditer(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.DOTALL):
        yield from _json_calls(found[1])


def _xml(text: str) -> Iterator[ToolCall | Malformed]:
    """Qwen3-Coder, Qwen3.5: <tool_call><function=NAME><parameter=NAME>VALUE</parameter></function></tool_call>"""
    for found in re.finditer(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.DOTALL):
        function = re.search(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", found[1], re.DOTALL)
        if function is None:
            yield Malformed(f"a tool call without <function=NAME>: {_shown(found[1])}")
            continue
        pairs = re.findall(
            r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", function[2], re.DOTALL
        )
        yield ToolCall(function[1].strip(), {name.strip(): _value(value) for name, value in pairs})


def _glm(text: str) -> Iterator[ToolCall | Malformed]:
    """GLM-4.5: <tool_call>NAME<arg_key>NAME</arg_key><arg_value>VALUE</arg_value></tool_call>"""
    for found in re.finditer(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.DOTALL):
        name = found[1].partition("<arg_key>")[0].strip()
        pairs = re.findall(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", found[1], re.DOTALL)
        yield (
            ToolCall(name, {key.strip(): _value(value) for key, value in pairs})
            if name
            else Malformed(f"a tool call without a name: {_shown(found[1])}")
        )


def _llama(text: str) -> Iterator[ToolCall | Malformed]:
    """Llama 3.1 to 3.3: the turn is {"name": ..., "parameters": {...}}, several with semicolons between them."""
    said = text.replace("<|python_tag|>", "").strip()
    if said.startswith("{") and ('"name"' in said or "<|python_tag|>" in text):
        yield from _json_calls(said)


def _mistral(text: str) -> Iterator[ToolCall | Malformed]:
    """Mistral: [TOOL_CALLS][{"name": ..., "arguments": {...}}], since 2025 [TOOL_CALLS]NAME[ARGS]{...}"""
    for part in text.split("[TOOL_CALLS]")[1:]:
        name, marker, arguments = part.partition("[ARGS]")
        yield from _named(name.strip(), arguments) if marker else _json_calls(part)


def _deepseek(text: str) -> Iterator[ToolCall | Malformed]:
    """DeepSeek V3 and R1: a block of `function`, separator, name and fenced JSON."""
    for found in re.finditer(r"<｜tool▁call▁begin｜>(.*?)(?:<｜tool▁call▁end｜>|\Z)", text, re.DOTALL):
        _, separator, call = found[1].partition("<｜tool▁sep｜>")
        name, _, fenced = call.strip().partition("\n")
        arguments = re.sub(r"\A\s*```(?:json)?|```\s*\Z", "", fenced)
        yield from (
            _named(name.strip(), arguments)
            if separator
            else [Malformed(f"a tool call without <｜tool▁sep｜>: {_shown(found[1])}")]
        )


def _pythonic(text: str) -> Iterator[ToolCall | Malformed]:
    """Llama 3.2 and 4, LFM2: a list of calls, [name(argument=value), ...]"""
    marked = re.search(r"<\|(?:tool_call|python)_start\|>(.*?)(?:<\|(?:tool_call|python)_end\|>|\Z)", text, re.DOTALL)
    said = (marked[1] if marked else text).strip()
    if not re.match(r"\[\s*[A-Za-z_][\w.]*\(", said):
        return
    try:
        tree = ast.parse(said, mode="eval").body
        for call in tree.elts if isinstance(tree, ast.List) else [tree]:
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError("only name(argument=value) is a call")
            values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
            yield ToolCall(ast.unparse(call.func), values)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Malformed(f"the tool calls cannot be read ({_reason(error)}): {_shown(said)}")


_READERS: Mapping[CallFormat, Callable[[str], Iterator[ToolCall | Malformed]]] = {
    "hermes": _hermes,
    "xml": _xml,
    "glm": _glm,
    "llama": _llama,
    "mistral": _mistral,
    "deepseek": _deepseek,
    "pythonic": _pythonic,
}


def _json_calls(text: str) -> Iterator[ToolCall | Malformed]:
    """One JSON object after another, or lists of them."""
    decoder, place, text = json.JSONDecoder(), 0, text.strip()
    if not text:
        yield Malformed("an empty tool call")
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Malformed(f"a tool call is not valid JSON ({_reason(error)}): {_shown(text[place:])}")
            return
        yield from map(_call, value if isinstance(value, list) else [value])
        place = re.compile(r"[\s;,]*").match(text, place).end()  # type: ignore[union-attr]


def _named(name: str, arguments: str) -> Iterator[ToolCall | Malformed]:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        yield Malformed(f"the arguments of {_shown(name)} are not valid JSON ({_reason(error)}): {_shown(arguments)}")
        return
    yield _call({"name": name, "arguments": value})


def _call(value: Any) -> ToolCall | Malformed:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return Malformed(f'a tool call needs {{"name": ..., "arguments": {{...}}}}, not {_shown(json.dumps(value))}')
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # as JSON inside JSON, which some models write
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        return Malformed(f"the arguments of {value['name']} must be an object, not {_shown(json.dumps(arguments))}")
    return ToolCall(value["name"], arguments)


def _value(text: str) -> Any:
    """XML has no types: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _reason(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or error or type(error).__name__)


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def mistakes(calls: Sequence[ToolCall | Malformed], tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences for the model about calls that cannot be read, or that name no known tool or lack an argument."""
    known = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    found = []
    for call in calls:
        if isinstance(call, Malformed):
            found.append(call.reason)
        elif call.name not in known:
            found.append(f"there is no tool {_shown(call.name)!r}; known are {', '.join(known)}")
        elif missing := [name for name in known[call.name].get("required", ()) if name not in call.arguments]:
            found.append(f"{call.name} needs the arguments {', '.join(missing)}")
        elif unknown := _unknown(call, known[call.name]):
            found.append(f"{call.name} takes no arguments {', '.join(unknown)}")
    return found


def _unknown(call: ToolCall, schema: Mapping[str, Any]) -> list[str]:
    properties = schema.get("properties")
    return [] if properties is None else [_shown(name) for name in call.arguments if name not in properties]
