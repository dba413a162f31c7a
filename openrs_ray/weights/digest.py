"""A 64-bit digest of bytes, the same on a CPU and on a GPU: the proof that weights arrived."""

import torch

BLOCK_BYTES = 1 << 18
"""The digest of a buffer is the sum of its parts' digests, if these begin at multiples of this."""

_BLOCK_WORDS = BLOCK_BYTES // 4
_GPU_BLOCKS = 64  # in one pass, bounding the int64 products to 32 MiB; a CPU takes one block, which stays in its cache
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed 64-bit integer


def digest(buffer: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """Position-weighted sum of the 32-bit words of a contiguous uint8 buffer (zeros fill the last) modulo 2^64.

    A word's weight is that of its place in a block times that of the block, both odd. Any single changed word is noticed, and any
    other change except with a chance of 2^-64 to 2^-32 (the latter if all words change in their highest bit only).

    `offset`: bytes before this part of a larger buffer, a multiple of BLOCK_BYTES.
    """
    tail = -buffer.numel() % 4
    words = (torch.nn.functional.pad(buffer, (0, tail)) if tail else buffer).view(torch.int32)
    sums = _block_sums(words, _weights(0, min(_BLOCK_WORDS, words.numel()), buffer.device))
    return (sums * _weights(_BLOCK_WORDS + offset // BLOCK_BYTES, len(sums), buffer.device)).sum()


def column_digests(matrix: torch.Tensor) -> torch.Tensor:
    """Digest of every column of a matrix [rows, columns]: the sum of its words, weighted by row.

    int64 [columns], or [columns / 2] for 16-bit numbers, of which two neighbours share a word.
    """
    matrix = matrix.contiguous()
    pairs = matrix.element_size() == 2 and matrix.shape[1] % 2 == 0
    words = matrix.view(torch.int32 if pairs or matrix.element_size() == 4 else torch.int16)
    weights = _weights(0, len(words), matrix.device)[:, None]
    total = torch.zeros(words.shape[1], dtype=torch.int64, device=matrix.device)
    rows = max(1, _BLOCK_WORDS * _blocks_at_once(matrix.device) // max(1, words.shape[1]))
    room = torch.empty_like(words[:rows], dtype=torch.int64)
    for start in range(0, len(words), rows):
        part = words[start : start + rows]
        total += room[: len(part)].copy_(part).mul_(weights[start : start + rows]).sum(0)
    return total


def _block_sums(words: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of every block, int64 [blocks]; the last may be shorter."""
    whole = words[: words.numel() // _BLOCK_WORDS * _BLOCK_WORDS].view(-1, _BLOCK_WORDS)
    rest = words[whole.numel() :]
    sums = torch.zeros(len(whole) + 1, dtype=torch.int64, device=words.device)
    sums[-1] = (rest * weights[: rest.numel()]).sum()
    # One buffer for all blocks: on a CPU, allocating costs more than summing.
    count = _blocks_at_once(words.device)
    room = torch.empty_like(whole[:count], dtype=torch.int64)
    for start in range(0, len(whole), count):
        part = whole[start : start + count]
        torch.sum(room[: len(part)].copy_(part).mul_(weights), 1, out=sums[start : start + len(part)])
    return sums


def _blocks_at_once(device: torch.device) -> int:
    return 1 if device.type == "cpu" else _GPU_BLOCKS


def _weights(start: int, count: int, device: torch.device) -> torch.Tensor:
    """Odd numbers for the positions from `start` on."""
    weight = torch.arange(start + 1, start + 1 + count, dtype=torch.int64, device=device) * _GOLDEN
    # The xor-shift makes the weights of neighbours unrelated; `| 1` keeps them invertible modulo 2^64.
    return (weight ^ (weight >> 29)) | 1
