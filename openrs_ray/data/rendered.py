"""Compares conversations with the chat template's output, by letters and digits."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.formatting import quoted
from openrs_ray.config.data import Data
from openrs_ray.data.texts import letters_key
from openrs_ray.data.turns import Message
from openrs_ray.errors import UserError
from openrs_ray.models.templating import rendered


def check_rendered(
    data: Data,
    conversations: Sequence[list[Message]],
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """UserError for a template that yields no tokens, equal tokens for different problems, or leaves out text."""
    asked = [conversation[-1]["content"] for conversation in conversations]
    for text, ids in zip(asked, prompts, strict=True):
        if not ids:
            raise UserError(
                f"the chat template gives no tokens for the problem {quoted(text)}: set model.chat_template"
            )
    if len({tuple(ids) for ids in prompts}) == 1 and len({letters_key(text) for text in asked}) > 1:
        other = next(text for text in asked if letters_key(text) != letters_key(asked[0]))
        raise UserError(
            f"the chat template gives the same tokens for the problems {quoted(asked[0])} and {quoted(other)}: "
            "set model.chat_template to one that shows the problem"
        )
    longest = max(conversations, key=lambda conversation: len(conversation[-1]["content"]))
    for conversation in (conversations[0], longest):
        _check_whole(data, conversation, _rendered(conversation, tokenizer))


def takes_no_system_message(conversations: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if the template would take refused conversations without system messages."""
    for conversation in conversations:
        others = [message for message in conversation if message["role"] != "system"]
        if len(others) < len(conversation):
            try:
                _rendered(others, tokenizer)
            except UserError:
                return False
            return True
    return False


def _check_whole(data: Data, conversation: list[Message], text: str) -> None:
    shown = letters_key(text)
    for number, example in enumerate(data.examples, start=1):
        if letters_key(example.response) not in shown:
            raise UserError(
                f"the chat template does not show all of the response of example {number} in data.examples (many templates drop "
                "what stands before </think>): leave its reasoning out, or set model.chat_template to one that keeps it"
            )
    for message in conversation:
        if message["role"] == "system" and letters_key(message["content"]) not in shown:
            raise UserError(
                "the chat template leaves out the system message: set data.system_as_user true, which puts its text before "
                "the first user turn"
            )
        if message["role"] == "user" and letters_key(message["content"]) not in shown:
            raise UserError(
                f"the chat template does not show all of the user turn {quoted(message['content'])}: set model.chat_template"
            )


def _rendered(conversation: list[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    return rendered(tokenizer, [conversation])[0]
