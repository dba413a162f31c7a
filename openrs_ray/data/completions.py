"""Decodes completions: the same way for training, evaluation and curation."""

from collections.abc import Iterable
from itertools import takewhile

import numpy as np
from transformers import PreTrainedTokenizerBase

from openrs_ray.data.prompts import response_prefix
from openrs_ray.records import Rollout


def completion_texts(
    completions: Iterable[Iterable[int]], tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]
) -> list[str]:
    """Texts up to the stop token, without padding."""
    ends, pad = {*end_ids}, tokenizer.pad_token_id
    kept = [[int(i) for i in takewhile(lambda i: int(i) not in ends, ids) if int(i) != pad] for ids in completions]
    # Other special tokens stay: many reasoning models have `<think>` as one, and rewards look for it.
    texts: list[str] = tokenizer.batch_decode(kept, skip_special_tokens=False)
    return texts


def last_turn_texts(
    rollouts: Iterable[Rollout], tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int], opening: str
) -> list[str]:
    """Texts of the last turns alone, each with what the template has written before it: `opening` before a first turn."""
    ends, texts = {*end_ids}, list[str]()
    for rollout in rollouts:
        start = _last_turn(rollout)
        (text,) = completion_texts([rollout.token_ids[start:]], tokenizer, ends)
        before = rollout.token_ids[max(0, start - 8) : start]
        texts.append((response_prefix(tuple(map(int, before)), tokenizer) if start else opening) + text)
    return texts


def turn_texts(
    rollout: Rollout, tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int], opening: str
) -> tuple[str, ...]:
    """Texts of the policy's turns, each with what the template has written before it: `opening` before the first."""
    edges = np.flatnonzero(np.diff(rollout.sampled, prepend=False, append=False))
    texts = completion_texts([rollout.token_ids[start:end] for start, end in edges.reshape(-1, 2)], tokenizer, end_ids)
    before = [rollout.token_ids[max(0, start - 8) : start] for start in edges[::2]]
    prefixes = [response_prefix(tuple(map(int, ids)), tokenizer) if len(ids) else opening for ids in before]
    return tuple(prefix + text for prefix, text in zip(prefixes, texts, strict=True))


def rollout_texts(rollouts: Iterable[Rollout], tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]) -> list[str]:
    """Texts of all turns and of the tokens given between them, up to the last stop token."""
    ends = {*end_ids}
    kept = []
    for rollout in rollouts:
        start = _last_turn(rollout)
        before, last = rollout.token_ids[:start], rollout.token_ids[start:]
        kept.append([*before, *takewhile(lambda i: int(i) not in ends, last)])
    return completion_texts(kept, tokenizer, ())


def _last_turn(rollout: Rollout) -> int:
    """Where the tokens begin that follow the last given ones."""
    given = np.flatnonzero(~rollout.sampled)
    return int(given[-1]) + 1 if len(given) else 0
