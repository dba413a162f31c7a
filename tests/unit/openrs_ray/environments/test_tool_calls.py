"""Tool calls in the formats of public models, held against vLLM's parsers of the same formats."""

import json
from typing import Any

import pytest
from chat_templates import QWEN25, tokenizer_with

from openrs_ray.environments.tool_calls import Malformed, ToolCall, mistakes, tool_calls
from openrs_ray.models.tool_template import CallFormat

CALLS = [("get_weather", {"city": "Z\u00fcrich", "days": 3}), ("add", {"terms": [1, 2.5], "exact": True})]


def hermes(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


def xml(name: str, arguments: dict[str, Any]) -> str:
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def glm(name: str, arguments: dict[str, Any]) -> str:
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in values.items())
    return f"<tool_call>{name}\n{inner}</tool_call>"


def deepseek(name: str, arguments: dict[str, Any]) -> str:
    fenced = f"```json\n{json.dumps(arguments)}\n```"
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n{fenced}<｜tool▁call▁end｜>"


def pythonic(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


WRITTEN: dict[CallFormat, str] = {
    "hermes": "I look.\n" + "\n".join(hermes(*call) for call in CALLS),
    "xml": "I look.\n" + "\n".join(xml(*call) for call in CALLS),
    "glm": "I look.\n" + "\n".join(glm(*call) for call in CALLS),
    "llama": "; ".join(json.dumps({"name": name, "parameters": arguments}) for name, arguments in CALLS),
    "mistral": "[TOOL_CALLS]" + json.dumps([{"name": name, "arguments": arguments} for name, arguments in CALLS]),
    "deepseek": f"<｜tool▁calls▁begin｜>{chr(10).join(deepseek(*call) for call in CALLS)}<｜tool▁calls▁end｜>",
    "pythonic": f"[{', '.join(pythonic(*call) for call in CALLS)}]",
}


@pytest.mark.parametrize("form", WRITTEN)
def test_calls_in_every_format(form: CallFormat) -> None:
    assert tool_calls(WRITTEN[form], form) == [ToolCall(*call) for call in CALLS]
    reasoned = f"<think>I might write {WRITTEN[form]} or not</think>\n"
    assert tool_calls(reasoned + "No.", form) == [], "what is only thought of is no call"
    assert tool_calls(reasoned.replace("</think>", ""), form) == []
    assert tool_calls("The answer is \\boxed{4}. [1, 2] {3}", form) == []


PARSERS = {
    "hermes": "hermes_tool_parser:Hermes2ProToolParser",
    "llama": "llama_tool_parser:Llama3JsonToolParser",
    "pythonic": "pythonic_tool_parser:PythonicToolParser",
}


@pytest.mark.parametrize("form", PARSERS)
def test_the_same_calls_as_vllms_parser_finds(form: CallFormat) -> None:
    from pkgutil import resolve_name

    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    tokenizer = tokenizer_with(QWEN25, "<|im_end|>")
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<|python_tag|>"])
    parser = resolve_name(f"vllm.tool_parsers.{PARSERS[form]}")(tokenizer)
    request = ChatCompletionRequest(messages=[], model="m")
    for text in (WRITTEN[form], "No call at all."):
        theirs = parser.extract_tool_calls(text, request).tool_calls
        found = [ToolCall(call.function.name, json.loads(call.function.arguments)) for call in theirs]
        assert tool_calls(text, form) == found
        assert len(found) == (2 if text == WRITTEN[form] else 0)


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>', "not valid JSON"),
        ("hermes", '<tool_call>{"name": "add", "argum', "not valid JSON"),
        ("hermes", "<tool_call></tool_call>", "an empty tool call"),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', 'needs {"name"'),
        ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "must be an object"),
        ("hermes", "<tool_call>7</tool_call>", 'needs {"name"'),
        ("hermes", f"<tool_call>{'[' * 100_000}</tool_call>", "nested|not valid JSON"),
        ("llama", '{"name": "add", "parameters": {"a": 1}', "not valid JSON"),
        ("mistral", "[TOOL_CALLS]add[ARGS]{1}", "not valid JSON"),
        ("mistral", "[TOOL_CALLS]nothing", "not valid JSON"),
        ("xml", "<tool_call>add</tool_call>", "without <function=NAME>"),
        ("glm", "<tool_call></tool_call>", "without a name"),
        ("deepseek", "<｜tool▁call▁begin｜>add<｜tool▁call▁end｜>", "without <｜tool▁sep｜>"),
        ("deepseek", deepseek("add", {}).replace("{}", "{"), "not valid JSON"),
        ("pythonic", "[add(1)]", "cannot be read"),
        ("pythonic", "[add(a=open('x'))]", "cannot be read"),
        ("pythonic", "[add(a=1", "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(form: CallFormat, text: str, reason: str) -> None:
    import re

    (found,) = tool_calls(text, form)
    assert isinstance(found, Malformed) and re.search(reason, found.reason) and len(found.reason) < 500


def test_calls_that_fit_no_tool_are_answered_in_words() -> None:
    parameters = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "add", "parameters": parameters}}]
    calls = [
        *(Malformed("broken"), ToolCall("sub"), ToolCall("add", {"b": 1}), ToolCall("add", {"a": 1, "c": 2})),
        ToolCall("add", {"a": 1}),
    ]
    assert mistakes(calls, tools) == [
        "broken",
        "there is no tool 'sub'; known are add",
        "add needs the arguments a",
        "add takes no arguments c",
    ]
