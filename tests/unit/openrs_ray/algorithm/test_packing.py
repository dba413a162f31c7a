"""Micro-batches hold every sequence exactly once, within budget, in equal numbers, evenly filled."""

import itertools
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import EMPTY, MicroBatch, _balanced_bins, pack, split


def sequences(count: int, seed: int = 0, longest: int = 40) -> list[TrainingSequence]:
    """Sequence i says its own number in every token of its completion."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        prompt = rng.integers(1000, 2000, rng.integers(1, 10)).astype(np.int32)
        completion = np.full(rng.integers(1, longest - 10), i, dtype=np.int32)
        made.append(TrainingSequence(prompt, completion, rng.normal(size=len(completion)).astype(np.float32), i + 0.5))
    return made


def unpack(batch: MicroBatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(prompt, completion, log-probabilities, advantages) of each sequence, told apart by the arrays alone."""
    ends = np.cumsum(batch.lengths)
    found, used = [], 0
    for start, end in zip(ends - batch.lengths, ends, strict=True):
        mask, ids = batch.completion_mask[start:end], batch.token_ids[start:end]
        tokens = slice(used, used + int(mask.sum()))
        found.append((ids[~mask], ids[mask], batch.behaviour_logprobs[tokens], batch.advantages[tokens]))
        assert list(batch.position_ids[start:end]) == list(range(end - start))
        used = tokens.stop
    assert used == len(batch.behaviour_logprobs) == len(batch.advantages)
    assert batch.completion_lengths == tuple(len(completion) for _, completion, _, _ in found)
    assert len(batch.token_ids) == len(batch.completion_mask) == ends[-1]
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 72])
@pytest.mark.parametrize("budget", [40, 64, 1000])
def test_every_sequence_is_there_once_and_ranks_are_equal(ranks: int, count: int, budget: int):
    given = sequences(count)
    shares = split(given, ranks, micro_batch_tokens=budget)
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) >= 1
    found = {}
    for batch in (batch for share in shares for batch in share if batch is not EMPTY):
        assert len(batch.token_ids) <= budget
        for prompt, completion, logprobs, advantages in unpack(batch):
            assert completion[0] not in found
            found[int(completion[0])] = (prompt, completion, logprobs, advantages)
    assert sorted(found) == list(range(count))
    for i, (prompt, completion, logprobs, advantages) in found.items():
        np.testing.assert_array_equal(prompt, given[i].prompt_ids)
        np.testing.assert_array_equal(completion, given[i].completion_ids)
        np.testing.assert_array_equal(logprobs, given[i].sampler_logprobs)
        np.testing.assert_array_equal(advantages, np.full(len(completion), i + 0.5, dtype=np.float32))


@pytest.mark.parametrize("seed", range(20))
def test_given_tokens_are_context_and_carry_nothing(seed: int):
    """Each token of the whole step is found again by its place alone, with its mark, log-probability and advantage."""
    rng = np.random.default_rng(seed)
    given, places = [], itertools.count()
    for i in range(int(rng.integers(1, 30))):
        ids = np.array([next(places) for _ in range(int(rng.integers(2, 40)))], dtype=np.int32)
        prompt = int(rng.integers(1, len(ids)))
        sampled = rng.random(len(ids) - prompt) < 0.5
        sampled[rng.integers(len(sampled))] = True
        logprobs = np.where(sampled, -ids[prompt:], np.nan).astype(np.float32)
        given.append(TrainingSequence(ids[:prompt], ids[prompt:], logprobs, float(i), sampled))
    owner = {int(token): sequence for sequence in given for token in (*sequence.prompt_ids, *sequence.completion_ids)}
    carrying = {int(token) for s in given for token, sampled in zip(s.completion_ids, s.mask, strict=True) if sampled}
    seen: list[int] = []
    for batch in (batch for share in split(given, 2, micro_batch_tokens=64) for batch in share if batch is not EMPTY):
        ids = batch.token_ids[batch.completion_mask]
        np.testing.assert_array_equal(batch.behaviour_logprobs, -ids.astype(np.float32))
        np.testing.assert_array_equal(batch.advantages, [owner[int(token)].advantage for token in ids])
        starts = np.cumsum(batch.lengths) - batch.lengths
        assert not batch.completion_mask[starts].any(), "each sampled token has one before it in its own sequence"
        firsts = batch.token_ids[starts]
        assert batch.completion_lengths == tuple(owner[int(first)].sampled_tokens for first in firsts)
        assert [len(owner[int(first)]) for first in firsts] == list(batch.lengths)
        assert batch.completion_tokens == len(ids)
        assert {*map(int, ids)} == carrying & {*map(int, batch.token_ids)}
        seen += map(int, batch.token_ids)
    assert sorted(seen) == list(range(next(places)))


def test_ranks_and_turns_are_evenly_loaded():
    shares = split(sequences(200, seed=3), 3, micro_batch_tokens=400)
    loads = np.array([[len(batch.token_ids) for batch in share] for share in shares])
    assert loads.max() - loads.min() <= 40  # no more than one longest sequence
    assert loads.sum(axis=1).max() / loads.sum(axis=1).min() < 1.02
    assert loads.shape[1] == -(-loads.sum() // (3 * 400))  # no more micro-batches than the tokens need


def test_the_same_input_gives_the_same_split():
    one, two = (split(sequences(50), 2, micro_batch_tokens=100) for _ in range(2))
    for a, b in zip(chain(*one), chain(*two), strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)


def test_by_sequences_deals_consecutive_ones_in_turn():
    shares = split(sequences(8), 2, micro_batch_sequences=2)
    members = [[[int(completion[0]) for _, completion, _, _ in unpack(batch)] for batch in share] for share in shares]
    assert members == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


def test_by_sequences_fills_up_with_empty_ones():
    shares = split(sequences(5), 2, micro_batch_sequences=2)
    assert [len(share) for share in shares] == [2, 2]
    assert shares[1][1] is EMPTY and len(shares[0][1].lengths) == 1


def bins_tried_one_after_the_other(lengths: list[int], ranks: int, capacity: int) -> list[list[int]]:
    """Longest first, each into the emptiest; one more turn whenever one does not fit, from the fewest that hold all tokens."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    turns = max(1, -(-sum(lengths) // (capacity * ranks)))
    while True:
        bins: list[list[int]] = [[] for _ in range(turns * ranks)]
        loads = [0] * len(bins)
        for i in order:
            emptiest = min(range(len(bins)), key=lambda b: (loads[b], b))
            bins[emptiest].append(i)
            loads[emptiest] += lengths[i]
        if max(loads) <= capacity:
            return [bins[b] for b in sorted(range(len(bins)), key=lambda b: (-loads[b], b))]
        turns += 1


def test_numbers_of_bins_that_are_left_out_would_not_have_held_all() -> None:
    rng, tried = np.random.default_rng(0), 0
    for _ in range(300):
        capacity = int(rng.integers(10, 60))
        shortest = int(rng.integers(1, capacity + 1))
        lengths = rng.integers(shortest, capacity + 1, rng.integers(1, 60)).tolist()
        ranks = int(rng.integers(1, 4))
        found = _balanced_bins(lengths, ranks, capacity)
        assert found == bins_tried_one_after_the_other(lengths, ranks, capacity)
        tried += len(found) > ranks * max(1, -(-sum(lengths) // (capacity * ranks)))
    assert tried > 100, "often the fewest that hold all tokens are too few"


def test_a_sequence_longer_than_the_budget_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        split(sequences(3, longest=60), 1, micro_batch_tokens=5)
    with pytest.raises(ValueError, match="not both"):
        split(sequences(3), 1)


def grouped(groups: int, size: int, prompt: int, longest: int, shortest: int = 1) -> list[TrainingSequence]:
    """Sequences whose completion repeats the sequence's number; each group has a prompt of its own."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1000, 2000, prompt).astype(np.int32) for _ in range(groups)]
    lengths = rng.integers(shortest, longest + 1, groups * size)
    return [
        TrainingSequence(prompts[i // size], np.full(n, i, np.int32), np.zeros(n, np.float32), i + 0.5)
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("budget", [60, 100, 1000])
def test_prompts_are_shared_where_that_pays(ranks: int, budget: int):
    given = grouped(groups=8, size=6, prompt=20, longest=30)
    shares = split(given, ranks, micro_batch_tokens=budget)
    batches = [batch for share in shares for batch in share if batch is not EMPTY]
    found = [int(completion[0]) for batch in batches for _, completion, _, _ in unpack(batch)]
    assert sorted(found) == list(range(48))
    for batch in batches:
        assert batch.rows is not None and batch.computed_tokens <= budget
        kinds = {
            (int(row), int(token), int(at))
            for row, token, at in zip(batch.rows, batch.token_ids, batch.position_ids, strict=True)
        }
        assert len(kinds) == batch.computed_tokens, "a row is one token at one position"
        sampled = batch.rows[batch.completion_mask]
        assert len(set(sampled.tolist())) == len(sampled), "each sampled token has a row of its own"
    if budget == 1000:
        assert sum(batch.computed_tokens for batch in batches) < 0.7 * sum(map(len, given))


def test_copies_of_long_shared_prompts_stay_within_the_memory_of_a_micro_batch():
    """Attention computes with every prompt once per completion: 16 x 202 tokens of a group's 232 here."""
    given = grouped(groups=8, size=16, prompt=200, longest=2, shortest=2)
    (batches,) = split(given, 1, micro_batch_tokens=4096)
    assert all(batch.rows is not None and len(batch.token_ids) <= 2 * 4096 for batch in batches)
    assert sum(len(batch.lengths) for batch in batches) == 128 and len(batches) == 4


def test_short_prompts_are_computed_for_each_completion_as_before():
    """As in the paper's step: sharing saves 7 % of the tokens, but whole groups would fill ranks less evenly."""
    given = grouped(groups=12, size=6, prompt=20, longest=400)
    assert all(batch.rows is None for share in split(given, 3, micro_batch_tokens=4096) for batch in share)


def test_few_large_groups_are_not_kept_together_at_the_cost_of_an_idle_rank():
    given = grouped(groups=3, size=6, prompt=8, longest=20, shortest=20)
    shared = [
        [batch.rows is not None for share in split(given, ranks, micro_batch_tokens=4096) for batch in share]
        for ranks in (1, 2)
    ]
    assert shared == [[True], [False, False]]


def test_micro_batches_have_one_temperature_and_ranks_as_many_as_each_other() -> None:
    made = [replace(one, temperature=(0.5, 1.0, None)[n % 3]) for n, one in enumerate(sequences(50))]
    shares = split(made, 3, micro_batch_tokens=100)
    assert len({len(share) for share in shares}) == 1, "ZeRO-3 needs as many on every rank"
    for batch in chain(*shares):
        members = unpack(batch) if batch is not EMPTY else []
        assert {made[int(completion[0])].temperature for _, completion, _, _ in members} <= {batch.temperature}
    assert sum(len(unpack(batch)) for batch in chain(*shares) if batch is not EMPTY) == 50
    with pytest.raises(ValueError, match="sequences of one temperature, not 3"):
        pack(made)
