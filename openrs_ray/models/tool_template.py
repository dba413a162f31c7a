"""The form in which a chat template shows tools, calls of them and their results, where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the processes that read tool calls need no transformers
    from transformers import PreTrainedTokenizerBase

CallFormat = Literal["hermes", "xml", "glm", "llama", "mistral", "deepseek", "pythonic"]
"""Of a model's tool calls; `openrs_ray.environments.tool_calls` reads them."""

OWN_FORMAT: CallFormat = "hermes"
"""For templates that know no tools: the format that our text in the system prompt asks for."""

CALL_ID = "call00000"
"""Mistral's templates want one of nine characters for each result."""

_TOOL, _QUESTION, _TURN, _RESULT = "NAMEOFTHETOOL", "QUESTION", "TURNOFTHEMODEL", "RESULTOFTHETOOL"


def template_format(tokenizer: PreTrainedTokenizerBase) -> CallFormat | None:
    """None where the template does not show tools and their results, or has calls written in another format than these."""
    form = _format(str(tokenizer.chat_template))
    return form if form is not None and _shows_tools(tokenizer) else None


def _format(template: str) -> CallFormat | None:
    """By the markup in the template's text."""
    if "<tool_call>" in template:
        return "xml" if "<function=" in template else "glm" if "<arg_key>" in template else "hermes"
    marks: dict[str, CallFormat] = {
        "[TOOL_CALLS]": "mistral",
        "<｜tool▁call▁begin｜>": "deepseek",
        '"parameters": dictionary': "llama",
        "<|tool_call_start|>": "pythonic",
        "[func_name1(": "pythonic",
    }
    return next((form for mark, form in marks.items() if mark in template), None)


def _shows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    nothing = {"type": "object", "properties": {}}
    tool = {"type": "function", "function": {"name": _TOOL, "description": "", "parameters": nothing}}
    question, turn = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _TURN}
    result = {"role": "tool", "content": _RESULT, "tool_call_id": CALL_ID, "name": _TOOL}
    try:
        before = _text(tokenizer, [question], [tool])
        after = _text(tokenizer, [question, turn, result], None).partition(_TURN)[2]
    except Exception:  # templates raise what they like for what they do not take
        return False
    return _TOOL in before and _RESULT in after


def _text(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[dict[str, str]], tools: list[Any] | None) -> str:
    text: str = tokenizer.apply_chat_template(
        list(conversation), tools=tools, add_generation_prompt=True, tokenize=False
    )
    return text
