"""Runs chat templates and tokenizers in a child process that can be killed.

Both come with a model: the template is a program, and a tokenizer's pattern may take for ever. Errors in the child
(`openrs_ray.common.killable`) become one sentence.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.killable import Failed, in_child
from openrs_ray.errors import UserError

T = TypeVar("T")
Conversation = Sequence[dict[str, str]]

_CHUNK = 256
"""Conversations per deadline."""


def rendered(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], add_generation_prompt: bool = True
) -> list[str]:
    """Text of each conversation as the model reads it. UserError when the template fails."""

    def texts() -> Iterator[list[str]]:
        for chunk in _chunks(conversations):
            yield tokenizer.apply_chat_template(chunk, add_generation_prompt=add_generation_prompt, tokenize=False)

    try:
        return [*chain.from_iterable(in_child(texts))]
    except Failed as error:
        raise UserError(
            f"the chat template (model.chat_template, or else the tokenizer's own) does not take this conversation: {error}"
        ) from error


def templated(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[tuple[int, ...]]:
    """Token ids of each conversation, ending where the model's answer begins. UserError on failure."""
    return tokenized(tokenizer, rendered(tokenizer, conversations))


def tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool = False
) -> list[tuple[int, ...]]:
    """Token ids of each text. UserError on failure."""

    def ids() -> Iterator[list[tuple[int, ...]]]:
        for chunk in _chunks(texts):
            found = tokenizer(chunk, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
            yield [tuple(one) for one in found]

    try:
        return [*chain.from_iterable(in_child(ids))]
    except Failed as error:
        raise UserError(
            f"the tokenizer of model.path {tokenizer.name_or_path!r} cannot tokenize the prompts: {error}"
        ) from error


def _chunks(several: Sequence[T]) -> Iterator[list[T]]:
    return (list(several[start : start + _CHUNK]) for start in range(0, len(several), _CHUNK))
