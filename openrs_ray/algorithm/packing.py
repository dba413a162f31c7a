"""Packs training sequences into micro-batches without padding. Pure and deterministic.

Every rank gets the same number of micro-batches, because ZeRO-3 gathers weights in each; `EMPTY` ones make up the difference.
Where prompts are a large part of the tokens, a micro-batch computes each prompt once for all its completions of that group.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int32

from openrs_ray.algorithm.advantages import TrainingSequence

SHARING_PAYS = 1.1
"""Least factor by which shared prompts must reduce the slowest ranks' tokens to be used."""
_ATTENDED = 2
"""Attention copies a shared prompt for each of its completions: so many of those places count as a token of the budget."""


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Example: sequences (1 9 | 5 2) and (7 | 3), completions after the bar: token_ids=[1, 9, 5, 2, 7, 3], lengths=[4, 2],
    completion_mask=[0, 0, 1, 1, 0, 1], one log-probability and one advantage for each of the tokens 5, 2, 3.
    """

    token_ids: Int32[np.ndarray, " tokens"]
    lengths: Int32[np.ndarray, " sequences"]
    completion_mask: Bool[np.ndarray, " tokens"]
    """Sampled tokens, which carry loss."""
    behaviour_logprobs: Float32[np.ndarray, " completion_tokens"]
    advantages: Float32[np.ndarray, " completion_tokens"]
    rows: Int32[np.ndarray, " tokens"] | None = None
    """Row in which each token is computed; completions of one prompt share its rows. None: each token has a row of its own.

    Example: prompt 1 9 with the completions 5 and 2 6 gives token_ids=[1, 9, 5, 1, 9, 2, 6], rows=[0, 1, 2, 0, 1, 3, 4].
    """
    temperature: float | None = None
    """Of all its sequences, as in `TrainingSequence`."""

    members: tuple[int, ...] = ()
    """Places of the sequences in the list that `split` was given."""

    @property
    def computed_tokens(self) -> int:
        return len(self.token_ids) if self.rows is None else int(self.rows.max()) + 1

    @property
    def position_ids(self) -> Int32[np.ndarray, " tokens"]:
        return np.concatenate([np.arange(length, dtype=np.int32) for length in self.lengths])

    @property
    def completion_tokens(self) -> int:
        return len(self.advantages)

    @property
    def completion_lengths(self) -> tuple[int, ...]:
        """Sampled tokens of each sequence."""
        starts = np.cumsum(self.lengths) - self.lengths
        return tuple(np.add.reduceat(self.completion_mask, starts, dtype=np.int64).tolist())


EMPTY = MicroBatch(
    token_ids=np.zeros(2, dtype=np.int32),
    lengths=np.array([2], dtype=np.int32),
    completion_mask=np.zeros(2, dtype=np.bool_),
    behaviour_logprobs=np.zeros(0, dtype=np.float32),
    advantages=np.zeros(0, dtype=np.float32),
)


def split(
    sequences: Sequence[TrainingSequence],
    ranks: int,
    *,
    micro_batch_tokens: int | None = None,
    micro_batch_sequences: int | None = None,
    places: Sequence[int] | None = None,
) -> list[list[MicroBatch]]:
    """Micro-batches of each rank, by token budget (as few as possible, filled evenly) or by a fixed number of sequences.

    By number: consecutive places in the step (default: 0, 1, ...), dealt in turn, as the published trainer did. By tokens, each
    micro-batch has sequences of one temperature.
    """
    if (micro_batch_tokens is None) == (micro_batch_sequences is None):
        raise ValueError("give micro_batch_tokens or micro_batch_sequences, not both")
    parts = _by_temperature(sequences)
    if len(parts) > 1 and micro_batch_tokens is not None:
        each = [_among(part, sequences, ranks, micro_batch_tokens) for part in parts]
        return [[batch for part in each for batch in part[rank]] for rank in range(ranks)]
    share = False
    if micro_batch_tokens is not None:
        bins, share = _bins_by_tokens(sequences, ranks, micro_batch_tokens)
    else:
        bins = _bins_of_places(range(len(sequences)) if places is None else places, micro_batch_sequences or 1)
    turns = max(1, -(-len(bins) // ranks))
    bins += [[] for _ in range(turns * ranks - len(bins))]
    packed = [
        replace(pack([sequences[i] for i in members], share), members=tuple(members)) if members else EMPTY
        for members in bins
    ]
    return [packed[rank::ranks] for rank in range(ranks)]


def _by_temperature(sequences: Sequence[TrainingSequence]) -> list[list[int]]:
    """Places of the sequences of each temperature."""
    parts: dict[float | None, list[int]] = {}
    for place, sequence in enumerate(sequences):
        parts.setdefault(sequence.temperature, []).append(place)
    return [*parts.values()]


def _among(
    part: Sequence[int], sequences: Sequence[TrainingSequence], ranks: int, micro_batch_tokens: int
) -> list[list[MicroBatch]]:
    """Micro-batches of some of the sequences, whose members are places among all of them."""
    batches = split([sequences[place] for place in part], ranks, micro_batch_tokens=micro_batch_tokens)
    return [
        [replace(batch, members=tuple(part[member] for member in batch.members)) for batch in own] for own in batches
    ]


def pack(sequences: Sequence[TrainingSequence], share_prompts: bool = False) -> MicroBatch:
    """ValueError unless all sequences have one temperature."""
    temperatures = {sequence.temperature for sequence in sequences}
    if len(temperatures) != 1:
        raise ValueError(f"a micro-batch takes sequences of one temperature, not {len(temperatures)}")
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    mask = [part for s in sequences for part in (np.zeros(len(s.prompt_ids), dtype=np.bool_), s.mask)]
    return MicroBatch(
        token_ids=np.concatenate([ids for s in sequences for ids in (s.prompt_ids, s.completion_ids)]).astype(np.int32),
        lengths=lengths,
        completion_mask=np.concatenate(mask),
        behaviour_logprobs=np.concatenate([s.sampler_logprobs[s.mask] for s in sequences]).astype(np.float32),
        advantages=np.concatenate([np.full(s.sampled_tokens, s.advantage, dtype=np.float32) for s in sequences]),
        rows=_rows(sequences) if share_prompts else None,
        temperature=sequences[0].temperature,
    )


def _rows(sequences: Sequence[TrainingSequence]) -> Int32[np.ndarray, " tokens"]:
    prompts: dict[bytes, np.ndarray] = {}
    parts, used = [], 0
    for sequence in sequences:
        name, length = sequence.prompt_ids.tobytes(), len(sequence.completion_ids)
        if name not in prompts:
            prompts[name] = np.arange(used, used + len(sequence.prompt_ids), dtype=np.int32)
            used += len(sequence.prompt_ids)
        parts += [prompts[name], np.arange(used, used + length, dtype=np.int32)]
        used += length
    return np.concatenate(parts)


def _bins_of_places(places: Sequence[int], size: int) -> list[list[int]]:
    """Indices per bin of `size` consecutive places."""
    bins: list[list[int]] = [[] for _ in range(max(places, default=-1) // size + 1)]
    for index, place in enumerate(places):
        bins[place // size].append(index)
    return bins


def _bins_by_tokens(sequences: Sequence[TrainingSequence], ranks: int, capacity: int) -> tuple[list[list[int]], bool]:
    """Indices per bin, and True if prompts are shared. Sharing packs whole groups, which fill ranks less evenly."""
    each = [len(sequence) for sequence in sequences]
    alone = _balanced_bins(each, ranks, capacity)
    groups, shared = _of_one_prompt(sequences, capacity)
    together = _balanced_bins(shared, ranks, capacity)
    if _waited_for(together, shared, ranks) * SHARING_PAYS >= _waited_for(alone, each, ranks):
        return alone, False
    return [[i for group in members for i in groups[group]] for members in together], True


def _of_one_prompt(sequences: Sequence[TrainingSequence], capacity: int) -> tuple[list[list[int]], list[int]]:
    """Groups of sequences with the same prompt, as many as fit: their indices, and their tokens with the prompt counted once.

    Where those are few beside the places that attention makes of them, memory is bound by the latter (`_ATTENDED`).
    """
    groups: list[list[int]] = []
    tokens: list[int] = []
    places: list[int] = []
    newest: dict[bytes, int] = {}
    for i, sequence in enumerate(sequences):
        name, more = sequence.prompt_ids.tobytes(), len(sequence.completion_ids)
        group = newest.get(name)
        if group is None or max(tokens[group] + more, -(-(places[group] + len(sequence)) // _ATTENDED)) > capacity:
            newest[name] = group = len(groups)
            groups.append([])
            tokens.append(len(sequence.prompt_ids))
            places.append(0)
        groups[group].append(i)
        tokens[group] += more
        places[group] += len(sequence)
    return groups, [max(computed, -(-held // _ATTENDED)) for computed, held in zip(tokens, places, strict=True)]


def _waited_for(bins: Sequence[Sequence[int]], lengths: Sequence[int], ranks: int) -> int:
    """Tokens that the ranks wait for: the fullest micro-batch of every turn, summed. `bins` are in order of load."""
    return sum(sum(lengths[i] for i in members) for members in bins[::ranks])


def _cannot_fit(every: Sequence[int], capacity: int) -> bool:
    """True if n bins are certainly too few. `every`: each n-th of the lengths, sorted from the longest.

    Of the k n + 1 longest sequences, some bin gets k + 1, none of which is shorter than the last of them.
    """
    return any((k + 1) * length > capacity for k, length in enumerate(every))


def _balanced_bins(lengths: list[int], ranks: int, capacity: int) -> list[list[int]]:
    """Indices per bin, in order of load: longest first, each into the emptiest; their number is a multiple of `ranks`."""
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a sequence of {max(lengths)} tokens does not fit into a micro-batch of {capacity}")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    turns = max(1, -(-sum(lengths) // (capacity * ranks)))
    while True:
        while _cannot_fit([lengths[i] for i in order[:: turns * ranks]], capacity):
            turns += 1
        heap: list[tuple[int, int]] = [(0, b) for b in range(turns * ranks)]
        bins: list[list[int]] = [[] for _ in heap]
        for i in order:
            load, emptiest = heap[0]
            if load + lengths[i] > capacity:
                break
            bins[emptiest].append(i)
            heapq.heapreplace(heap, (load + lengths[i], emptiest))
        else:
            loads = {b: load for load, b in heap}
            return [bins[b] for b in sorted(loads, key=lambda b: (-loads[b], b))]
        turns += 1
