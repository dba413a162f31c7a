"""Runs chat templates (programs) and tokenizers (patterns may take for ever) in a child process that can be killed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.killable import Failed, in_child
from openrs_ray.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
Conversation = Sequence[dict[str, str]]

_CHUNK = 256
"""Conversations per deadline."""


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Text of each conversation as the model reads it."""

    def texts(several: list[Conversation]) -> list[str]:
        found: list[str] = tokenizer.apply_chat_template(
            several, add_generation_prompt=add_generation_prompt, tokenize=False, tools=list(tools) or None
        )
        return found

    where = "the chat template (model.chat_template, or else the tokenizer's own) does not take this conversation"
    return _chunk_by_chunk(conversations, texts, where)


def templated(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], tools: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[int, ...]]:
    """Token ids of each conversation, ending where the model's answer begins."""
    return tokenized(tokenizer, rendered(tokenizer, conversations, tools=tools))


def tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = False
) -> list[tuple[int, ...]]:

    def ids(several: list[str]) -> list[tuple[int, ...]]:
        return [*map(tuple, tokenizer(several, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])]

    where = f"the tokenizer of model.path {tokenizer.name_or_path!r} cannot tokenize the prompts"
    return _chunk_by_chunk(texts, ids, where)


def _chunk_by_chunk(several: Sequence[T], work: Callable[[list[T]], list[R]], where: str) -> list[R]:
    """Results of `work` in a child process. UserError `where: why`."""

    def results() -> Iterator[list[R]]:
        return (work(list(several[start : start + _CHUNK])) for start in range(0, len(several), _CHUNK))

    try:
        return [*chain.from_iterable(in_child(results))]
    except Failed as error:
        raise UserError(f"{where}: {error}") from error
