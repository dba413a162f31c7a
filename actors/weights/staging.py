"""Staging memory of a push: buckets travel in pieces, which are packed into a few slots in turn while earlier ones travel."""

from collections.abc import Iterator

import torch

from openrs_ray.weights.digest import BLOCK_BYTES

SLOTS = 4
PIECE_BYTES = 128 * BLOCK_BYTES


def pieces(nbytes: int) -> Iterator[slice]:
    """Slices of a bucket that travel as one piece each, in sending order."""
    return (slice(start, min(start + PIECE_BYTES, nbytes)) for start in range(0, nbytes, PIECE_BYTES))


def staging_bytes(largest: int) -> int:
    """Bytes of the slots for buckets of up to `largest` bytes."""
    return SLOTS * min(PIECE_BYTES, largest)


class Staging:
    """Slots that are used in turn. A slot must have been read before it is used again."""

    def __init__(self, memory: torch.Tensor) -> None:
        self._slots = memory.chunk(SLOTS)
        self._taken = 0

    def take(self, nbytes: int) -> torch.Tensor:
        """The next slot, cut to uint8 [nbytes]."""
        slot = self._slots[self._taken % SLOTS]
        self._taken += 1
        return slot[:nbytes]
