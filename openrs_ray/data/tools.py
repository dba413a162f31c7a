"""Tools in the prompt: shown by the chat template, or by a text of ours where it shows none."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.killable import Failed, in_child
from openrs_ray.models.tool_template import template_format

Tools = Sequence[Mapping[str, Any]]
"""JSON schemas of functions."""


def shows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if the chat template shows tools and their results itself, with calls in a format that is read here."""
    with suppress(Failed):
        return any(in_child(lambda: iter([template_format(tokenizer) is not None])))
    return False


def with_tools(system_prompt: str | None, tools: Tools) -> str:
    """System prompt that describes the tools and the form of a call, as Hermes and Qwen models know it."""
    schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = (
        f"You may call these functions:\n<tools>\n{schemas}\n</tools>\n"
        "For each call write a JSON object with the function's name and its arguments between these tags, end your turn, and "
        'wait for the result:\n<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'
    )
    return f"{system_prompt}\n\n{text}" if system_prompt else text
