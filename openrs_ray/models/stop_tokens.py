"""Stop tokens: all tokens that any of a model's files names as an end.

The files often disagree: a base model's generation config ends a document, its chat template a turn, with another token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.errors import UserError
from openrs_ray.models.pretrained import read_config_file, read_generation_config
from openrs_ray.models.templating import rendered

_ANSWER = "ANSWER"


@dataclass(frozen=True, slots=True)
class StopToken:
    """Example: StopToken(151645, "<|im_end|>", ("tokenizer", "chat template"))"""

    id: int
    text: str
    named_by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.id} {self.text} ({', '.join(self.named_by)})"


def stop_tokens(path: str, vocabulary: int, tokenizer: PreTrainedTokenizerBase) -> tuple[StopToken, ...]:
    """By id. UserError where a file names a token that the model lacks, or none names any."""
    named: dict[int, list[str]] = {}
    for origin, value in _named(path, tokenizer):
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
                raise UserError(
                    f"the end-of-sequence token {token!r} in the {origin} of {path} is none of the model's {vocabulary} tokens: "
                    "mend eos_token_id there"
                )
            named.setdefault(token, []).append(origin)
    if not named:
        raise UserError(
            f"no file of {path} names an end-of-sequence token: set eos_token_id in its generation_config.json, or no "
            "completion would end"
        )
    return tuple(
        StopToken(token, tokenizer.decode([token]), tuple(dict.fromkeys(named[token]))) for token in sorted(named)
    )


def ends_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Special token that the chat template writes right after an assistant's turn."""
    turns = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": _ANSWER}]
    try:
        (text,) = rendered(tokenizer, [turns], add_generation_prompt=False)
    except UserError:  # a template may refuse any conversation; one that refuses prompts, too, is refused with them
        return None
    _, found, after = text.rpartition(_ANSWER)
    ids = tokenizer.encode(after.lstrip(), add_special_tokens=False)[:1] if found else []
    return next((token for token in ids if _is_special(token, tokenizer)), None)


def _named(path: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, Any]]:
    """(file, value) for each file that names any."""
    generation, config = read_generation_config(path), read_config_file(path)
    found = [
        ("generation_config.json", None if generation is None else generation.eos_token_id),
        # Not what the class makes of it: Llama's says 2 where the file says nothing.
        ("config.json", config.get("eos_token_id")),
        ("config.json", (config.get("text_config") or {}).get("eos_token_id")),
        ("tokenizer", tokenizer.eos_token_id),
        ("chat template", ends_turn(tokenizer)),
    ]
    yield from ((origin, value) for origin, value in found if value is not None)


def _is_special(token: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return token in tokenizer.all_special_ids or (added is not None and added.special)
