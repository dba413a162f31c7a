"""Token ids between two turns of the model: the end of the template's turn, the messages given, the beginning of the next turn.

The model's own tokens are never rendered or tokenized again. The template renders a short conversation of stand-ins instead, with
the given messages at its end, and only what follows the stand-in of the model's turn is tokenized. A template that would change
earlier turns (Qwen3 and DeepSeek-R1 drop their reasoning) changes nothing that has been sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.killable import Failed, in_child
from openrs_ray.environments.reply import Message
from openrs_ray.errors import UserError
from openrs_ray.models.tool_template import CALL_ID, template_format

_QUESTION, _TURN, _RESULT = "QUESTION", "TURNOFTHEMODEL", "RESULTOFTHETOOL"  # letters only: no template changes them
_LETTERS_PER_TOKEN = 64
"""Text with more than so many characters for each token that is left does not fit, and is not tokenized to see it."""


@dataclass(frozen=True)
class Between:
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    """All stop tokens of the model."""

    def ids(self, turn: Sequence[int], messages: Sequence[Message], room: int) -> tuple[int, ...] | None:
        """Tokens that follow a turn of the model and end where its next one begins. None where they cannot fit into `room`.

        `turn`: the turn's own tokens, which may end with a stop token.
        """
        if sum(len(message["content"]) for message in messages) > room * _LETTERS_PER_TOKEN:
            return None
        text = self._rendered(messages).partition(_TURN)[2]
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        given = tuple(self._after_end(ids, turn))
        return given if len(given) < room else None

    def _after_end(self, ids: list[int], turn: Sequence[int]) -> list[int]:
        """Without the template's end of the turn where the model has sampled one, be it another (Llama's <|eom_id|>)."""
        # A special token splits the text for every tokenizer: what follows it has the ids that it has in the whole conversation.
        ended = len(turn) > 0 and int(turn[-1]) in self.end_ids
        place = next((place for place, token in enumerate(ids) if self._is_end(token, turn)), None)
        blank = place is not None and not self.tokenizer.decode(ids[:place]).strip()
        return ids[place + 1 :] if ended and place is not None and blank else ids

    def _is_end(self, token: int, turn: Sequence[int]) -> bool:
        # GLM ends a turn with the next message's role, which is then in the text, too.
        return token == self._template_end or (len(turn) > 0 and token == int(turn[-1]))

    @cached_property
    def _template_end(self) -> int | None:
        """Token that the template writes right after a turn, if the model ends turns with it."""
        turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _TURN}]
        text: Any = self.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = self.tokenizer.encode(text.partition(_TURN)[2].lstrip(), add_special_tokens=False)
        return ids[0] if ids and ids[0] in self.end_ids else None

    @cached_property
    def tool_role(self) -> bool:
        """True if the template shows results of tools in a role of their own; else they come from the user."""
        return template_format(self.tokenizer) is not None

    def _rendered(self, messages: Sequence[Message]) -> str:
        return _rendered(self.tokenizer, messages, self.tool_role)


def check_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError where the chat template takes no further turn after one of the model's."""
    where = (
        "the chat template (model.chat_template, or else the tokenizer's own) takes no message after the model's turn"
    )
    try:
        (shown,) = in_child(lambda: iter([_shows(tokenizer, "user", tool_role=False)]))
    except Failed as error:
        raise UserError(f"{where}: {error}") from error
    if not shown:
        raise UserError(
            f"{where}: it leaves out the turn or the message; set model.chat_template to one that shows them"
        )


def _shows(tokenizer: PreTrainedTokenizerBase, role: str, tool_role: bool) -> bool:
    _, turn, after = _rendered(tokenizer, [{"role": role, "content": _RESULT}], tool_role).partition(_TURN)
    return bool(turn) and _RESULT in after


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tool_role: bool) -> str:
    conversation = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _TURN},
        *(_with_ids(messages) if tool_role else _from_user(messages)),
    ]
    text: str = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return text


def _with_ids(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [m | {"tool_call_id": CALL_ID} if m["role"] == "tool" else dict(m) for m in messages]


def _from_user(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Results of tools become one user message each, joined where several follow each other: roles alternate."""
    joined: list[dict[str, str]] = []
    for message in messages:
        role = "user" if message["role"] == "tool" else message["role"]
        if joined and joined[-1]["role"] == role:
            joined[-1] = {"role": role, "content": f"{joined[-1]['content']}\n{message['content']}"}
        else:
            joined.append({"role": role, "content": message["content"]})
    return joined
