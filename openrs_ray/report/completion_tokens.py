"""The tokens of a completion, one by one: text, log-probability, advantage, policy version."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openrs_ray.data.completions import UNFINISHED, Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_COLUMNS = ("token_ids", "logprobs", "sampled")
_CONTEXT = 5
"""Tokens before one that its text may depend on (a space at the beginning of a word)."""


def tokens_of(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase | Decoder | None") -> dict[str, list[Any]]:
    """Lists of equal length, of a row of the record with all its columns."""
    ids = row["token_ids"]
    sampled = row["sampled"] or [True] * len(ids)
    versions: list[int | None] = [None] * len(ids)
    for span in row["versions"]:
        versions[span["start"] : span["end"]] = [span["version"]] * (span["end"] - span["start"])
    return {
        "id": ids,
        "text": [None] * len(ids) if tokenizer is None else list(pieces(ids, Decoder.of(tokenizer))),
        "logprob": [
            value if own and math.isfinite(value) else None for value, own in zip(row["logprobs"], sampled, strict=True)
        ],
        "advantage": [row["advantage"] if own else None for own in sampled],
        "version": versions,
        "sampled": sampled,
    }


def pieces(ids: Sequence[int], decoder: Decoder) -> Iterator[str]:
    """The text that each token adds; together they are the text of all. A character of several tokens is the last one's."""
    begin = done = 0  # text of the tokens from begin to done is given out
    for end in range(1, len(ids) + 1):
        before, now = decoder.decode([ids[begin:done], ids[begin:end]])
        if now.endswith(UNFINISHED) and end < len(ids):
            yield ""
            continue
        yield now[len(before) :]
        begin, done = max(0, end - _CONTEXT), end
