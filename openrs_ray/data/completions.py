"""Decodes completions: the same way for training, evaluation and curation."""

from collections.abc import Iterable
from itertools import takewhile

from transformers import PreTrainedTokenizerBase


def completion_texts(
    completions: Iterable[Iterable[int]], tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]
) -> list[str]:
    """Texts without padding, stop token and everything after it.

    Other special tokens stay: many reasoning models have `<think>` as one, and rewards look for it.
    """
    ends, pad = {*end_ids}, tokenizer.pad_token_id
    kept = [[int(i) for i in takewhile(lambda i: int(i) not in ends, ids) if int(i) != pad] for ids in completions]
    texts: list[str] = tokenizer.batch_decode(kept, skip_special_tokens=False)
    return texts
