"""A 64-bit digest of bytes, the same on a CPU and on a GPU: the proof that weights arrived."""

import torch

_CHUNK_WORDS = 1 << 22  # Bounds the int64 temporaries to 64 MiB
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed 64-bit integer


def digest(buffer: torch.Tensor) -> torch.Tensor:
    """Position-weighted sum of the 32-bit words of a contiguous uint8 buffer (zeros fill the last) modulo 2^64.

    Every word has an odd factor: any single changed word shows, any other change with probability 1 - 2^-64.
    """
    tail = -buffer.numel() % 4
    words = (torch.nn.functional.pad(buffer, (0, tail)) if tail else buffer).view(torch.int32)
    total = torch.zeros((), dtype=torch.int64, device=buffer.device)
    for start in range(0, words.numel(), _CHUNK_WORDS):
        chunk = words[start : start + _CHUNK_WORDS].to(torch.int64)
        total += (chunk * _weights(start, chunk.numel(), buffer.device)).sum()
    return total


def column_digests(matrix: torch.Tensor) -> torch.Tensor:
    """The same sum down every column of a matrix [rows, columns].

    int64 [columns], or [columns / 2] for 16-bit numbers, of which two neighbours share a word.
    """
    matrix = matrix.contiguous()
    pairs = matrix.element_size() == 2 and matrix.shape[1] % 2 == 0
    words = matrix.view(torch.int32 if pairs or matrix.element_size() == 4 else torch.int16)
    total = torch.zeros(words.shape[1], dtype=torch.int64, device=matrix.device)
    rows = max(1, _CHUNK_WORDS // max(1, words.shape[1]))
    for start in range(0, len(words), rows):
        chunk = words[start : start + rows].to(torch.int64)
        total += (chunk * _weights(start, len(chunk), matrix.device)[:, None]).sum(0)
    return total


def _weights(start: int, count: int, device: torch.device) -> torch.Tensor:
    """Odd numbers for the positions from `start` on."""
    weight = torch.arange(start + 1, start + 1 + count, dtype=torch.int64, device=device) * _GOLDEN
    # The xor-shift makes the weights of neighbours unrelated; `| 1` keeps them invertible modulo 2^64.
    return (weight ^ (weight >> 29)) | 1
