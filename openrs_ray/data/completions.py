"""Decodes completions: the same way for training, evaluation and curation. Light to import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from openrs_ray.records import Message
from openrs_ray.rewards.answers.extraction import THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
"""Decoded from the first bytes of a character whose others have not come."""
_PREFIX_TOKENS = 8
"""Tokens at the end of a prompt that show whether the template opens the reasoning."""


class Sampled(Protocol):
    """Token ids that texts are made of: a `Rollout`, or its message to the reward pool."""

    @property
    def token_ids(self) -> np.ndarray: ...
    @property
    def sampled(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Decoder:
    """A tokenizer's way from ids to text, special tokens included; it travels to actors that need not import transformers."""

    tokenizer: Any
    """A tokenizer of the library `tokenizers` where it alone decodes for transformers; else of transformers."""
    pad_id: int | None
    light: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase | Decoder) -> Decoder:
        if isinstance(tokenizer, Decoder):
            return tokenizer
        light = _asks_only_the_library(tokenizer)
        return cls(tokenizer._tokenizer if light else tokenizer, tokenizer.pad_token_id, light)

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        # Special tokens stay: many reasoning models have `<think>` as one, and rewards look for it.
        if self.light:
            return list(self.tokenizer.decode_batch(sequences, skip_special_tokens=False))
        return [self.tokenizer.decode(ids, skip_special_tokens=False) for ids in sequences]

    def texts(self, completions: Iterable[Iterable[int]], end_ids: Iterable[int]) -> list[str]:
        """Texts up to the first stop token, without padding."""
        ends = (*end_ids,)
        return self.decode([self._without_padding(_before_end(_ids(each), ends)).tolist() for each in completions])

    def _without_padding(self, ids: np.ndarray) -> np.ndarray:
        return ids if self.pad_id is None else ids[ids != self.pad_id]


def completion_texts(
    completions: Iterable[Iterable[int]], tokenizer: PreTrainedTokenizerBase | Decoder, end_ids: Iterable[int]
) -> list[str]:
    """Texts up to the stop token, without padding."""
    return Decoder.of(tokenizer).texts(completions, end_ids)


def last_turn_texts(
    rollouts: Iterable[Sampled],
    tokenizer: PreTrainedTokenizerBase | Decoder,
    end_ids: Iterable[int],
    opening: str,
) -> list[str]:
    """Texts of the last turns alone, each with what the template has written before it: `opening` before a first turn."""
    decoder, starts = Decoder.of(tokenizer), [(rollout.token_ids, _last_turn(rollout)) for rollout in rollouts]
    texts = decoder.texts((ids[start:] for ids, start in starts), end_ids)
    return [
        (response_prefix(ids[:start], decoder) if start else opening) + text
        for (ids, start), text in zip(starts, texts, strict=True)
    ]


def turn_texts(
    rollout: Sampled, tokenizer: PreTrainedTokenizerBase | Decoder, end_ids: Iterable[int], opening: str
) -> tuple[str, ...]:
    """Texts of the policy's turns, each with what the template has written before it: `opening` before the first."""
    decoder, edges = Decoder.of(tokenizer), np.flatnonzero(np.diff(rollout.sampled, prepend=False, append=False))
    texts = decoder.texts([rollout.token_ids[start:end] for start, end in edges.reshape(-1, 2)], end_ids)
    before = [rollout.token_ids[:start] for start in edges[::2]]
    prefixes = [response_prefix(ids, decoder) if len(ids) else opening for ids in before]
    return tuple(prefix + text for prefix, text in zip(prefixes, texts, strict=True))


def rollout_texts(
    rollouts: Iterable[Sampled], tokenizer: PreTrainedTokenizerBase | Decoder, end_ids: Iterable[int]
) -> list[str]:
    """Texts of all turns and of the tokens given between them, up to the last stop token."""
    ends, kept = (*end_ids,), list[np.ndarray]()
    for rollout in rollouts:
        start = _last_turn(rollout)
        last = _before_end(rollout.token_ids[start:], ends)
        kept.append(rollout.token_ids[: start + len(last)])
    return Decoder.of(tokenizer).texts(kept, ())


def response_prefix(ids: Sequence[int] | np.ndarray, tokenizer: PreTrainedTokenizerBase | Decoder) -> str:
    """ "<think>" where the template itself opens the reasoning, otherwise nothing."""
    # A completion of such a prompt holds only the closing tag; the format reward needs both.
    (text,) = Decoder.of(tokenizer).decode([_ids(ids)[-_PREFIX_TOKENS:].tolist()])
    return opening_after(text)


def opening_after(prompt: str) -> str:
    """The same for a prompt's text."""
    return THINK_OPEN if prompt.rstrip().endswith(THINK_OPEN) else ""


@dataclass(frozen=True, slots=True)
class Texts(Message):
    """Texts of one rollout."""

    whole: str
    """All turns and the text given between them, with `opening`, for the record."""
    judged: str
    """The last turn, which rewards read: an answer written by a tool or in an earlier try does not count."""
    turns: tuple[str, ...] = ()
    """The policy's turns, if there are several."""


@dataclass(frozen=True, slots=True)
class RolloutDecoder:
    """Decodes rollouts, each text once."""

    decoder: Decoder
    end_ids: tuple[int, ...]
    opening: str
    """The chat template's beginning of every answer ("<think>" or nothing)."""

    def __call__(self, rollouts: Sequence[Sampled]) -> list[Texts]:
        whole = [self.opening + text for text in rollout_texts(rollouts, self.decoder, self.end_ids)]
        return [self._texts(rollout, text) for rollout, text in zip(rollouts, whole, strict=True)]

    def _texts(self, rollout: Sampled, whole: str) -> Texts:
        if rollout.sampled.all():
            return Texts(whole, whole)
        (judged,) = last_turn_texts([rollout], self.decoder, self.end_ids, self.opening)
        return Texts(whole, judged, turn_texts(rollout, self.decoder, self.end_ids, self.opening))


def _last_turn(rollout: Sampled) -> int:
    """Where the tokens begin that follow the last given ones."""
    given = np.flatnonzero(~rollout.sampled)
    return int(given[-1]) + 1 if len(given) else 0


def _ids(ids: Iterable[int]) -> np.ndarray:
    return ids if isinstance(ids, np.ndarray) else np.array([*ids], dtype=np.int64)


def _before_end(ids: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    """The ids before the first stop token."""
    firsts = (int(found[0]) for end in ends if len(found := np.flatnonzero(ids == end)))
    return ids[: min(firsts, default=len(ids))]


def _asks_only_the_library(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if transformers decodes with its fast tokenizer and leaves that text unchanged."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    unchanged = (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and kind._decode is PreTrainedTokenizerFast._decode
        and kind.decode is PreTrainedTokenizerBase.decode
    )
    return unchanged and not tokenizer.clean_up_tokenization_spaces
